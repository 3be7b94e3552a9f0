"""The digest of a training's code."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from loop_workshop import Workshop, train_here

from poolscore.jobs.loop import training
from poolscore.jobs.loop.code import digest_of_files

OF_USERS = ("mine", "helper", "parts", "within")  # modules


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process would."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OF_USERS]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    importlib.import_module("mine")


@pytest.mark.parametrize(
    ("imports", "changed"),
    [
        ("", "mine.py"),
        ("import helper", "helper.py"),
        ("from helper import RATE", "helper.py"),
        ("from helper import *", "helper.py"),
        ("import parts.helper", "parts/helper.py"),  # a folder without __init__.py
        ("from parts import helper as h", "parts/helper.py"),
        ("import within", "within/helper.py"),
        ("try:\n    from . import helper\nexcept ImportError:\n    import helper", "helper.py"),
    ],
)
def test_it_is_of_all_that_the_file_imports(
    folder: Path, monkeypatch: pytest.MonkeyPatch, imports: str, changed: str
) -> None:
    for part in ("parts", "within"):
        (folder / part).mkdir()
    (folder / "within" / "__init__.py").write_text("from .helper import RATE")
    (folder / "mine.py").write_text(f"from functools import partial\n{imports}\ntrain = partial(print)\n")
    digests = []
    for rate in ("1", "1  # a word about it", "2"):
        before = (folder / changed).read_text() if (folder / changed).exists() else ""
        (folder / changed).write_text(f"{before.partition('RATE')[0]}RATE = {rate}\n")
        imported(monkeypatch)
        digests.append(digest_of_files("mine"))
    assert digests[0] == digests[1] != digests[2]


def test_what_is_written_while_it_trains_is_code_of_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "run_logged", train_here)
    edits = "with open(__file__, 'a') as file:\n        file.write('RATE = 2\\n')"
    (folder / "mine.py").write_text(
        f"import loop_parts\ndef train(*given):\n    {edits}\n    return loop_parts.train(*given)\n"
    )
    imported(monkeypatch)
    written = digest_of_files("mine")
    shop = Workshop.make(folder)
    shop.loop({"train": "mine:train", "stop": {"rounds": 1}})
    first, second = (json.loads((shop.round(n) / "trained.json").read_text())["code"] for n in (0, 1))
    assert first == written != second
