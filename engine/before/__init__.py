"""What a user looks at before hours are spent: labelled rows, other settings, hours and prices."""
