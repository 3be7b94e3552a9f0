"""The same job on a cluster, through Ray Jobs. The commands are in `jobs/cli/cluster.py`.

order.py     what the driver is told: the configuration; travel.py: the code that goes with it
place.py     on which machine the driver runs
cluster.py   the seam to Ray's Job Submission client; address.py and token.py find the way to it
job.py       what a cluster says of a job, and the exit code that this is; `find_job` for `poolscore status`
follow.py    a job's log as it grows, the end of its check, its end
driver.py    on the cluster: check within seconds, then the job of `poolscore score`; check.py is the first step
"""
