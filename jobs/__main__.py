"""`python -m poolscore.jobs` is `poolscore`."""

from poolscore.jobs.cli import main

main()
