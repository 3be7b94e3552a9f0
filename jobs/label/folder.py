"""A folder for each class: what lies in it is of that class. Pictures that nobody moved have no answer yet."""

from __future__ import annotations

from collections.abc import Sequence

from poolscore.engine.errors import ConfigError
from poolscore.engine.exclude import TASKS
from poolscore.jobs.label.answers import Given
from poolscore.jobs.tasks.folder import ABOUT, folders
from poolscore.jobs.tasks.manifest import SUCCESS, Tasks
from poolscore.jobs.tasks.question import SKIP
from poolscore.jobs.tasks.shown import FILES


def read(paths: Sequence[str], where: str, tasks: Tasks) -> list[Given]:
    """
    Args:
        paths: of the files in the folder, relative.

    Raises:
        ConfigError: a folder that is of no class, or a picture in two of them.
    """
    known = {**{label: label for label in tasks.question.classes}, **folders(tasks.question)}
    seen: dict[str, str] = {}
    given = []
    for path in sorted(paths):
        folder, _, name = path.rpartition("/")
        if folder == FILES or name in (ABOUT, ".DS_Store", "Thumbs.db") or path in (TASKS, SUCCESS):
            continue
        if folder not in known:
            raise ConfigError(f"{where}: '{path}' lies in no folder of a class; there are: {', '.join(known)}")
        if name in seen:
            raise ConfigError(f"{where}: {name} lies in '{seen[name]}' and in '{folder}'; take one of them away")
        seen[name] = folder
        label = None if known[folder] == SKIP else known[folder]
        given.append(Given(name, "task", label, "", None, f"{where}/{path}"))
    return given
