"""`python -m poolscore.jobs` is `poolscore`."""

from poolscore.jobs.cli import process

process()
