"""What a person sees in the terminal: progress, tables, one line for a failure. Plain lines when it is no terminal.

`terminal.py` has the parts, `progress.py` what moves, `before.py` and `after.py` what is told about a run.
"""

from poolscore.jobs.show.after import add_stages, summary, verified
from poolscore.jobs.show.before import advice, check, exported, plan, warnings
from poolscore.jobs.show.progress import Progress, counting
from poolscore.jobs.show.terminal import Facts, busy, done, facts, failure, warn

__all__ = [
    "Facts",
    "Progress",
    "add_stages",
    "advice",
    "busy",
    "check",
    "counting",
    "done",
    "exported",
    "facts",
    "failure",
    "plan",
    "summary",
    "verified",
    "warn",
    "warnings",
]
