"""What a person sees in the terminal: progress, tables, one line for a failure. Plain lines when it is no terminal.

`terminal.py` has the parts, `progress.py` what moves, `before.py` and `after.py` what is told about a run.
"""

from poolscore.jobs.show.after import summary, verified
from poolscore.jobs.show.before import advice, check, exported, plan, warnings
from poolscore.jobs.show.progress import Progress, counting
from poolscore.jobs.show.terminal import Facts, busy, done, facts, failure, set_up_log, warn

__all__ = [
    "Facts",
    "Progress",
    "advice",
    "busy",
    "check",
    "counting",
    "done",
    "exported",
    "facts",
    "failure",
    "plan",
    "set_up_log",
    "summary",
    "verified",
    "warn",
    "warnings",
]
