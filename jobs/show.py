"""What a person sees in the terminal: progress, tables, one line for a failure. Plain lines when it is no terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

if TYPE_CHECKING:
    from poolscore.engine.check import CheckResult
    from poolscore.engine.pool.plan import Plan
    from poolscore.engine.prepare import Prepared
    from poolscore.engine.run.coordinator import State
    from poolscore.engine.run.directory import RunDirectory
    from poolscore.engine.score import RunResult

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
PLAIN_LINE_EVERY = 10.0  # seconds


def done(text: str) -> None:
    """A result."""
    console.print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """Something to know."""
    errors.print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)


def failure(text: str) -> None:
    """Why the command stopped."""
    errors.print(f"[red]poolscore:[/] {escape(text)}", soft_wrap=True)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """A spinner for what takes seconds."""
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for rows done of rows in all; gives the function to call with both."""
    with Bars(
        SpinnerColumn(),
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task(what, total=None)
        yield lambda rows, total: bars.update(task, completed=rows, total=total)


class Progress:
    """Rows, rows/s, time left and rejected rows of a run."""

    def __init__(self, plan: Plan) -> None:
        self._rows = plan.rows
        self._first: tuple[float, int] | None = None
        self._last_line = -PLAIN_LINE_EVERY
        self._bars = Bars(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows  {task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("starting workers", total=self._rows)

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, state: State) -> None:
        """Called by the run."""
        now = time.monotonic()
        rows = state.totals.rows
        if self._first is None and state.workers:
            self._first = now, rows  # what an earlier call scored does not count for the rate
        text = self._describe(state, now)
        self._bars.update(self._task, completed=rows, description=text)
        finished = rows >= self._rows
        if not console.is_terminal and (finished or now - self._last_line >= PLAIN_LINE_EVERY):
            self._last_line = now
            console.print(f"{rows:,} of {self._rows:,} rows  {text}", soft_wrap=True)

    def _describe(self, state: State, now: float) -> str:
        if self._first is None:
            return "starting workers"
        began, at = self._first
        rate = (state.totals.rows - at) / (now - began) if now > began else 0.0
        left = f"{_duration((self._rows - state.totals.rows) / rate)} left" if rate else "…"
        parts = [f"{rate:,.0f} rows/s", left, f"{state.workers} workers"]
        parts += [f"{state.totals.rejected:,} rejected"] if state.totals.rejected else []
        parts += [f"{state.retried} retried"] if state.retried else []
        parts += [f"{state.set_aside} shards set aside"] if state.set_aside else []
        return "  ".join(parts)


def plan(prepared: Prepared) -> None:
    """What the dry run found."""
    config, pool, probe = prepared.config, prepared.plan, prepared.job.probe
    table = _facts(f"plan for {config.pool.uri}")
    table.add_row("pool", f"{pool.rows:,} rows, {pool.files:,} files, {pool.bytes / 1e6:,.1f} MB")
    if prepared.excluded:
        table.add_row("excluded", f"{prepared.excluded:,} ids are labelled already")
    table.add_row("shards", f"{len(pool.shards):,} of about {config.run.shard_rows:,} rows")
    for name, spec in prepared.job.row_specs.items():
        table.add_row(f"input {name}".strip(), f"{list(spec.shape)} {spec.dtype}")
    table.add_row("model", f"{config.model.source}, {probe.outputs} outputs, task {config.model.task}")
    table.add_row(
        "passes",
        f"T={config.passes.count}, {config.passes.masks} masks ({prepared.mask_bytes / 1e6:,.1f} MB), "
        "each input repeated T times at the model's input",
    )
    for layer in probe.layers:
        kind = "" if layer.kind == "element" else f"{layer.kind} "
        table.add_row(
            f"live dropout {layer.index}", f"{layer.name or '(root)'}: {kind}p={layer.p:g} on {list(layer.shape)}"
        )
    for name, kind in probe.stays_off.items():
        table.add_row(
            "[yellow]stays off[/]", f"{escape(name or '(root)')} ({kind}): random, cannot be answered with masks"
        )
    rate = config.run.batch_size / prepared.batch_seconds
    hours = pool.rows / rate / 3600
    table.add_row(
        "one batch", f"{config.run.batch_size} rows in {prepared.batch_seconds * 1e3:,.0f} ms here, scores included"
    )
    table.add_row(
        "one such worker", f"{rate:,.0f} rows/s without reading and decoding: {hours:,.2f} hours for the pool"
    )
    console.print(table)


def warnings(prepared: Prepared) -> None:
    """What must not be overlooked."""
    for name, kind in prepared.job.probe.stays_off.items():
        warn(f"{name or 'the model'} ({kind}) is random in training but stays off: it cannot be answered with masks")


def check(result: CheckResult) -> None:
    """The labelled rows."""
    table = _facts(f"check on {result.rows:,} labelled rows")
    what = "accuracy" if result.is_accuracy else "RMSE"
    table.add_row(f"{what}, dropout off", f"{result.quality_without_dropout:.3f}")
    table.add_row(f"{what}, dropout on", f"{result.quality:.3f}")
    for name, value in result.auroc.items():
        text = f"{value:.3f}" if value == value else "no errors to rank"
        table.add_row(f"{name} ranks errors", f"AUROC {text}" if value == value else text)
    if result.rejected:
        table.add_row("rejected", f"{result.rejected:,} rows")
    console.print(table)


def summary(result: RunResult, report_path: str) -> None:
    """What the run came to."""
    totals = result.totals
    table = _facts("done" if not result.set_aside else "[yellow]finished, but not whole[/]")
    table.add_row("scored", f"{totals.scored:,} rows")
    if totals.rejected:
        reason = max(totals.reasons, key=lambda r: totals.reasons[r])
        table.add_row("rejected", f"{totals.rejected:,} rows, most often: {escape(reason)}")
    if totals.excluded:
        table.add_row("excluded", f"{totals.excluded:,} rows")
    for shard, reason in result.set_aside.items():
        table.add_row(f"[yellow]shard {shard}[/]", f"set aside: {escape(reason)}")
    table.add_row("time", f"{_duration(result.seconds)}, {totals.rows_per_worker_second:,.0f} rows/s per worker")
    table.add_row("memory", f"{totals.peak_memory / 2**20:,.0f} MiB at the peak of a worker")
    table.add_row("selection", escape(result.selection))
    table.add_row("report", escape(report_path))
    console.print(table)


def status(run: RunDirectory, as_json: bool) -> None:
    """How far a run is."""
    totals, pool, info = run.totals(), run.info["pool"], run.info
    facts: dict[str, Any] = {
        "status": info["status"],
        "run": run.storage.root,
        "shards": {"done": totals.shards, "all": pool["shards"]},
        "rows": {
            "all": pool["rows"],
            "scored": totals.scored,
            "rejected": totals.rejected,
            "excluded": totals.excluded,
        },
        "rows_per_worker_second": totals.rows_per_worker_second,
        "set_aside": info.get("set_aside", {}),
        "created": info["created"],
        "updated": info["updated"],
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = _facts(escape(run.storage.root))
    table.add_row("status", info["status"] + (f": {escape(info['stopped_by'])}" if info["status"] == "stopped" else ""))
    table.add_row("shards", f"{totals.shards:,} of {pool['shards']:,}")
    table.add_row(
        "rows", f"{totals.rows:,} of {pool['rows']:,}; {totals.rejected:,} rejected, {totals.excluded:,} excluded"
    )
    table.add_row("speed", f"{totals.rows_per_worker_second:,.0f} rows/s per worker")
    for shard, reason in facts["set_aside"].items():
        table.add_row(f"shard {shard}", f"set aside: {escape(reason)}")
    console.print(table)


def _facts(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
