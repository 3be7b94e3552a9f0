"""The judge of the other tests notices what it is there for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from chaos.same import Outcome, same


def _change(part: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(part)), part)


def _negate_a_zero(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("variation_ratio")
    values = table["variation_ratio"].to_pylist()
    values[values.index(0.0)] = -0.0
    return table.set_column(at, "variation_ratio", pa.array(values, pa.float32()))


def _part(run: Path) -> Path:
    return next(iter(sorted((run / "scores").iterdir())))


def _says_stopped(run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"status": "stopped"}))


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a row is missing": ("exactly once", lambda run: _change(_part(run), lambda table: table.slice(1))),
    "a row is twice": ("exactly once", lambda run: _change(_part(run), lambda t: pa.concat_tables([t, t.slice(0, 1)]))),
    "one bit": ("'variation_ratio' has other bits", lambda run: _change(_part(run), _negate_a_zero)),
    "an error": ("exactly once", lambda run: _change(next((run / "errors").iterdir()), lambda table: table.slice(1))),
    "the selection": ("another selection", lambda run: (run / "selection.parquet").write_bytes(b"")),
    "not whole": ("no _SUCCESS", lambda run: (run / "_SUCCESS").unlink()),
    "not done": ("'stopped'", _says_stopped),
    "an orphan": ("orphans", lambda run: (run / "scores" / "part-00000-0123abcd.parquet").touch()),
    "half written": ("half-written", lambda run: (run / "scores" / ".part-00000.tmp").touch()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed(finished: Path, reference: Outcome, damage: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    same(str(run), reference)
    message, do = DAMAGES[damage]
    do(run)
    with pytest.raises(AssertionError, match=message):
        same(str(run), reference)


def test_the_reference_has_rows_of_both_kinds(reference: Outcome) -> None:
    assert (reference.scores.num_rows, reference.errors.num_rows) == (reference.rows - 3, 3)
    assert len(pc.unique(reference.scores["bald"])) > reference.rows / 2
