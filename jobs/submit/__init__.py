"""The same job on a cluster, through Ray Jobs: `poolscore submit`, `logs`, `stop`, `list`, and what `status` says of one.

  order.py     what travels: the configuration, poolscore's own code, the user's
  place.py     on which machine the driver runs
  cluster.py   the seam to Ray's Job Submission client; address.py and token.py find the way to it
  job.py       what a cluster says of a job, and the exit code that this is
  follow.py    a job's log as it grows, and the end of its check
  command.py   the commands
  driver.py    on the cluster: check within seconds, then the job of `poolscore score`; check.py is the first step
"""
