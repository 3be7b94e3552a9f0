"""Which storage lies behind a path or URI."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from poolscore.engine.storage.base import Storage
from poolscore.engine.storage.local import LocalStorage
from poolscore.engine.storage.patient import PatientStorage
from poolscore.engine.storage.uri import local_path


def open_storage(
    root: str,
    patience: float = 0.0,
    stopped: Event | None = None,
    on_waited: Callable[[float, str], None] = lambda seconds, why: None,
) -> Storage:
    """The storage behind a run directory, given as a path or URI.

    Args:
        patience: seconds to wait for storage that fails; see PatientStorage.
        stopped: once it is set nobody waits any more.
        on_waited: see PatientStorage.

    Raises:
        ConfigError: a kind of storage that is not supported.
    """
    storage = _bare_storage(root)
    return PatientStorage(storage, patience, stopped, on_waited) if patience else storage


def _bare_storage(root: str) -> Storage:
    path = local_path(root)
    if path is not None:
        return LocalStorage(path if "://" in root else root)
    from poolscore.engine.storage.objects import ObjectStorage  # its clients are not needed for a local run

    return ObjectStorage(root)
