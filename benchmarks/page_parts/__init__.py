"""What results_page.py writes: the tables of each theme by what they are about, the headlines and the pictures."""
