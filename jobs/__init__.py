"""poolscore's jobs: the command line, configuration files, reports and the demonstration."""
