"""A batch to label: its rows as tables, what it was made from, and what is to be said of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from poolscore.engine.selection.choice import Choice
from poolscore.engine.selection.columns import Columns
from poolscore.engine.selection.control import CONTROL, control_ranks, with_control
from poolscore.engine.selection.methods import AWARE, BY_CHANCE
from poolscore.engine.selection.order import NO_ROWS, Rows
from poolscore.engine.selection.others import Others
from poolscore.engine.selection.parts import Part
from poolscore.engine.words import amount

ABOUT = b"poolscore"  # key of the schema metadata: JSON, what the rows were selected from


@dataclass(frozen=True)
class Batch:
    """The batch to label, which need not fit into memory."""

    choice: Choice
    about: Mapping[str, Any]  # what it is made from
    _columns: Columns
    _others: Others
    _control: Rows = field(default_factory=lambda: NO_ROWS)
    _run_names: Sequence[str] = ()  # empty where there is one run
    _lacking: str | None = None  # what the shortlist that it is selected from lacks

    @property
    def count(self) -> int:
        """Rows."""
        return self._others.count + len(self._control)

    @property
    def notes(self) -> Sequence[str]:
        """What is to be said of it."""
        choice, notes = self.choice, list(self._others.notes)
        if self._lacking is not None:
            notes.append(
                f"it is selected from a shortlist that is not what it should be: {self._lacking}; `poolscore score` "
                "with shortlist.rows above 0 makes it anew"
            )
        if listed := self.about.get("candidates"):
            notes.append(
                f"the candidates are the {amount(listed['rows'], 'row')} of the shortlist, the best by "
                f"{listed['method']} of {listed['score']}; the best by {choice.method} of {choice.score} may not be "
                "among them"
            )
        if excluded := self.about.get("excluded"):
            left_out, listed = amount(excluded["rows"], "scored row"), amount(excluded["listed"], "id")
            notes.append(f"{left_out} left out: --exclude lists {listed}")
        if len(self._control):
            drawn = f"{amount(len(self._control), 'row')} of them drawn at random from all that are scored"
            notes.append(f"{drawn}: their method is '{CONTROL}'")
        elif choice.control and choice.k:
            notes.append(
                f"no control rows: {choice.control:g} of {amount(choice.k, 'row')} rounds to none; raise "
                "select.control or k"
            )
        if refused := self.about.get("refused_by_caps"):
            notes.append(
                f"{refused:,} of the best {choice.k:,} gave way, for groups of theirs were full ({choice.caps})"
            )
        if self.count < choice.k and choice.method not in AWARE:  # which say so themselves
            notes.append(f"{amount(self.count, 'row')} instead of {choice.k:,}: {self._candidates()} hold no more")
        return notes

    def _candidates(self) -> str:
        """What the rows are taken from, as words."""
        caps = f" under the caps ({self.choice.caps})" if self.choice.caps else ""
        return f"the {'shortlist' if self.choice.needs_shortlist else 'scores'}{caps}"

    @property
    def parts(self) -> Sequence[Part]:
        """What the rows of `ranked` lie in."""
        return self._columns.parts

    def ranked(self) -> Iterator[Rows]:
        """The rows, by rank. Each call begins anew."""
        return with_control(self._others.blocks(), self._control, self._control_ranks)

    def tables(self) -> Iterator[pa.Table]:
        """The batch, best first, in tables of up to BLOCK rows. Each call begins anew: a write that fails is
        repeated."""
        about = {ABOUT: json.dumps(self.about)}
        for table in self._columns.tables(self.ranked(), self.count):
            yield self._with_names(table).replace_schema_metadata(about)

    def _with_names(self, table: pa.Table) -> pa.Table:
        names, count = self._columns.names, table.num_rows
        columns = {name: table[name] for name in ("rank", "row_id", "key", "id", "score")}
        ranks_N = table["rank"].to_numpy()
        control_N = np.isin(ranks_N, self._control_ranks)
        of_control, picked = pa.array(control_N), None
        if self._others.columns is not None:
            places_N = ranks_N - 1 - np.searchsorted(self._control_ranks, ranks_N)
            picked = self._others.columns.take(pa.array(places_N, mask=control_N))
        columns["method"] = pc.if_else(of_control, CONTROL, picked["method"] if picked else self.choice.method)
        columns["score_name"] = pa.repeat(self.choice.score, count)
        if self.choice.method in BY_CHANCE:
            columns["perturbed_score"] = pc.if_else(of_control, None, table["value"])
        if picked is not None:
            columns |= {"step": picked["step"], "gain": picked["gain"]}
        if self._run_names:
            run_of_part = [self._run_names[part.run] for part in self._columns.parts]
            columns["run"] = pa.array([run_of_part[i] for i in table["part"].to_pylist()], pa.string())
        return pa.table({**columns, **{name: table[name] for name in names if name != "id"}})

    @cached_property
    def _control_ranks(self) -> NDArray[np.int64]:
        return control_ranks(self._control, self.count, self.choice.seed)
