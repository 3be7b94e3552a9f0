"""`export-tasks`: a selection handed over to people. `export_tasks` does it, `read_tasks` reads it again."""

from poolscore.jobs.tasks.export import Exported, export_tasks
from poolscore.jobs.tasks.manifest import Tasks, read_tasks
from poolscore.jobs.tasks.question import SKIP

__all__ = ["SKIP", "Exported", "Tasks", "export_tasks", "read_tasks"]
