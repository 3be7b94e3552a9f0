"""What a person sees in the terminal: progress, tables, one line for a failure. Plain lines when it is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from poolscore.engine.stages import STAGES, bounding_stage, idle_share
from poolscore.engine.words import amount
from poolscore.jobs.verified import RANDOM_PART, verified_in_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolscore.engine.advise import Advised
    from poolscore.engine.check import CheckResult
    from poolscore.engine.finish import RunResult
    from poolscore.engine.model.dropout import DropoutLayer
    from poolscore.engine.model.export import Exported
    from poolscore.engine.pool.plan import Plan
    from poolscore.engine.prepare import Prepared
    from poolscore.engine.run.coordinator import State
    from poolscore.engine.run.totals import Totals

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
PLAIN_LINE_EVERY = 10.0  # seconds
NAMED = 3  # files, of many


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
    """A bar for rows done of rows in all, or a line now and then; gives the function to call with both."""
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
        began = last_line = time.monotonic()
        first: int | None = None

        def update(rows: int, total: int | None) -> None:
            nonlocal last_line, first
            first = rows if first is None else first  # what an earlier try did does not count for the rate
            bars.update(task, completed=rows, total=total)
            now = time.monotonic()
            if not console.is_terminal and now - last_line >= PLAIN_LINE_EVERY:
                last_line = now
                of_all = "" if total is None else f" of {total:,}"
                rate = (rows - first) / (now - began)
                console.print(f"{what}: {rows:,}{of_all} rows  {rate:,.0f} rows/s", soft_wrap=True)

        yield update


class Progress:
    """Rows, rows/s, time left and rejected rows of a run."""

    def __init__(self, plan: Plan) -> None:
        self._rows = plan.rows
        self._first: tuple[float, int] | None = None
        self._last_line = -PLAIN_LINE_EVERY
        self._refused = 0  # workers that were told of
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
        for refused in state.refused[self._refused :]:
            warn(f"{refused}; it is not used: its scores would differ in their last bits (run.allow_mixed)")
        self._refused = len(state.refused)
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
        parts = [f"{rate:,.0f} rows/s", left, amount(state.workers, "worker")]
        parts += [f"{state.totals.rejected:,} rejected"] if state.totals.rejected else []
        parts += [f"{state.retried} retried"] if state.retried else []
        parts += [f"{amount(state.set_aside, 'shard')} set aside"] if state.set_aside else []
        parts += [f"{amount(state.bisected, 'shard')} searched for fatal rows"] if state.bisected else []
        return "  ".join(parts)


def plan(prepared: Prepared) -> None:
    """What the dry run found."""
    config, pool, probe = prepared.config, prepared.plan, prepared.job.probe
    facts = Facts(f"plan for {config.pool.uri}")
    for label, value in _pool(prepared):
        facts.add(label, value)
    if prepared.listed:
        facts.add("exclude", f"{prepared.listed:,} ids are listed as labelled already")
    facts.add("shards", f"{len(pool.shards):,} of up to about {config.run.shard_rows:,} rows")
    for name, spec in prepared.job.row_specs.items():
        facts.add(f"input {name}".strip(), f"{list(spec.shape)} {spec.dtype}")
    facts.add("model", f"{config.model.source}, {probe.outputs} outputs, task {config.model.task}")
    facts.add("passes", f"T={config.passes.count}, {config.passes.masks} masks ({prepared.mask_bytes / 1e6:,.1f} MB)")
    facts.add("precision", config.passes.precision)
    facts.add("frontier", _frontier(prepared))
    cost, share = prepared.cost, 1 - prepared.cost.once / max(1, prepared.cost.all_passes)
    facts.add("cost", f"T passes take {cost.relative:.2f}x the FLOPs of one; {share:.0%} of them behind the frontier")
    for layer in probe.layers:
        facts.add(f"{'live' if layer.live else 'other'} dropout {layer.index}", _layer(layer))
    for name, kind in probe.stays_off.items():
        facts.add("stays off", f"{name} ({kind}): random, cannot be answered with masks")
    rate = config.run.batch_size / prepared.batch_seconds
    facts.add(
        "one batch", f"{config.run.batch_size} rows in {prepared.batch_seconds * 1e3:,.0f} ms here, scores included"
    )
    whole = _duration(pool.expected_rows / rate)
    facts.add("one such worker", f"{rate:,.0f} rows/s without reading and decoding: {whole} for the pool")
    facts.show()
    for finding in prepared.findings:
        warn(str(finding))


def _pool(prepared: Prepared) -> Iterator[tuple[str, str]]:
    """The pool's shape, and what of it is left out."""
    config, files, plan = prepared.config.pool, prepared.pool, prepared.plan
    yield "pool", f"{amount(files.rows, 'row')}, {amount(plan.files, 'file')}, {_size(plan.bytes)}"
    yield (
        "row groups",
        f"{len(files.group_rows_G):,}: {_spread(files.group_rows_G)} rows, {_spread(files.group_bytes_G, _size)}",
    )
    if files.read < len(files):
        yield "footers", f"{files.read:,} read, the others known from the run directory"
    if plan.unreadable:
        names = ", ".join(list(plan.unreadable)[:NAMED])
        yield (
            "unreadable",
            f"{amount(len(plan.unreadable), 'file')} left out: {names}{', …' * (len(plan.unreadable) > NAMED)}",
        )
    if files.choice.keys:
        yield "partitions", ", ".join(files.choice.keys)
    if config.filter is not None:
        skipped = files.rows - int(files.group_rows_G[files.matches_G].sum())
        pruned = f"{amount(files.pruned, 'file')} by their folders, " if files.pruned else ""
        yield "filter", f"{config.filter}: passes over {pruned}{amount(skipped, 'row')} by their row groups' statistics"
    if config.sample is not None:
        yield "sample", f"about {plan.expected_rows:,} rows, from row groups of {plan.rows:,}"


def _spread(values: NDArray[Any], shown: Callable[[float], str] = "{:,.0f}".format) -> str:
    """Median, and least to largest if they differ."""
    from numpy import percentile

    least, middle, most = (float(v) for v in percentile(values, [0, 50, 100], method="nearest"))
    return shown(middle) if least == most else f"{shown(middle)} ({shown(least)} to {shown(most)})"


def _size(size: float) -> str:
    """Bytes, in words."""
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:,.1f} {unit}"
    return f"{size / 1000:,.1f} TB"


def facts(title: str, lines: Iterable[tuple[str, str]]) -> None:
    """Labels and values."""
    found = Facts(title)
    for label, value in lines:
        found.add(label, value)
    found.show()


def _layer(layer: DropoutLayer) -> str:
    kind = "" if layer.kind == "element" else f"{layer.kind} "
    return f"{layer.name}: {kind}p={layer.p:g} on {list(layer.shape)}"


def _frontier(prepared: Prepared) -> str:
    mc = prepared.scorer.model
    if mc.cut is None:
        return f"none: every input is repeated at the model's input ({mc.repeated_because})"
    names = ", ".join(layer.name for layer in mc.layers if layer.index in mc.cut.folded)
    folded = f"; masks of {names} folded into the Linear behind" if names else ""
    (before, behind), (once, each) = map(_from_to, mc.cut.modules), mc.cut.operators
    compiled = ", compiled" if mc.compiled else ""
    return f"{once} operators once per row ({before}), {each} for each pass ({behind}){folded}{compiled}"


def _from_to(names: Sequence[str]) -> str:
    if len(names) < 3:
        return ", ".join(names) or "no module's"
    return f"{names[0]} … {names[-1]}, {len(names)} modules"


def advice(advised: Advised) -> None:
    """What each setting costs, and what it keeps of the fullest."""
    table = Table(title=f"{advised.score} of {advised.rows:,} sampled rows, top {advised.top}", title_justify="left")
    for name in ("T", "layers", "precision"):
        table.add_column(name)
    for name in ("for the pool", "rank correlation", "top overlap", "stability"):
        table.add_column(name, justify="right")
    for one in advised.settings:
        layers = one.layers if isinstance(one.layers, str) else ", ".join(one.layers)
        shares = (f"{one.correlation:.3f}", f"{one.overlap:.0%}", f"{one.stability:.0%}")
        table.add_row(str(one.passes), escape(layers), one.precision, _duration(one.seconds), *shares)
    console.print(table)
    done(
        "For the pool: without reading, decoding and torch.compile. Correlation and overlap: with the last "
        "line, the fullest setting. Stability: how much of the top two halves of the passes agree on."
    )


def warnings(prepared: Prepared) -> None:
    """What must not be overlooked."""
    for note in prepared.extension.notes if prepared.extension is not None else ():
        warn(note)
    for finding in prepared.findings:
        warn(str(finding))
    because = prepared.scorer.model.repeated_because
    if because is not None and prepared.job.probe.live:
        warn(f"T passes cost T times one: every input is repeated at the model's input, because {because}")
    if prepared.uncompiled_because is not None:
        warn(f"the model runs without torch.compile: {prepared.uncompiled_because}")
    if off := [layer.name for layer in prepared.job.probe.layers if not layer.live]:
        warn(f"passes.layers leaves {len(off)} dropout layers off ({off[0]}, …): what they stand for counts as known")
    for name, kind in prepared.job.probe.stays_off.items():
        warn(f"{name} ({kind}) is random in training but stays off: it cannot be answered with masks")


def check(result: CheckResult) -> None:
    """The labelled rows."""
    facts = Facts(f"check on {result.rows:,} labelled rows")
    what = "accuracy" if result.is_accuracy else "RMSE"
    facts.add(f"{what}, dropout off", f"{result.quality_without_dropout:.3f}")
    facts.add(f"{what}, dropout on", f"{result.quality:.3f}")
    for name, value in result.auroc.items():
        text = f"{value:.3f}" if value == value else "no errors to rank"
        facts.add(f"{name} ranks errors", f"AUROC {text}" if value == value else text)
    if result.rejected:
        facts.add("rejected", f"{amount(result.rejected, 'row')}")
    facts.show()


def exported(model: Exported) -> None:
    """A model that was written."""
    facts = Facts(f"wrote {', '.join(map(str, model.files))}")
    if model.opset is not None:
        facts.add("opset", f"{model.opset}")
    facts.add("inputs", f"{', '.join(model.inputs)}: any number of rows")
    for layer in model.layers:
        facts.add(f"live dropout {layer.index}", _layer(layer))
    facts.show()
    if not model.layers:
        warn("the model has no dropout: its passes are all the same")
    if model.trust:
        warn(f"the file {model.trust}: as model.source it needs model.trust: true")


def summary(result: RunResult, report_path: str) -> None:
    """What the run came to."""
    totals = result.totals
    facts = Facts("done" if not (result.set_aside or result.limit) else "finished, but not whole")
    facts.add("scored", f"{amount(totals.scored, 'row')}")
    if result.limit is not None:
        share = totals.rows / result.pool_rows
        facts.add(
            "coverage", f"{share:.1%} of the pool's rows, {RANDOM_PART}; {amount(result.shards_left, 'shard')} left"
        )
        facts.add("ended", f"{result.limit}; the same command with more of it goes on")
    if totals.rejected:
        reason, count = max(totals.reasons.items(), key=lambda item: item[1])
        facts.add("rejected", f"{amount(totals.rejected, 'row')}, most often ({count:,}): {reason}")
    if totals.filtered:
        facts.add("left out", f"{amount(totals.filtered, 'row')} that pool.filter or pool.sample do not want")
    if totals.excluded or result.listed:
        facts.add("excluded", f"{amount(totals.excluded, 'row')}; pool.exclude lists {amount(result.listed, 'id')}")
    for shard, reason in result.set_aside.items():
        facts.add(f"shard {shard}", f"set aside: {reason}")
    if result.listed and not totals.excluded:
        warn("no id of pool.exclude is in the pool; are they written as in pool.id?")
    facts.add("time", f"{_duration(result.seconds)}, {totals.rows_per_worker_second:,.0f} rows/s per worker")
    add_stages(facts, totals)
    if result.mixed is not None:
        facts.add("mixed", result.mixed)
    facts.add("memory", f"{totals.peak_memory / 2**20:,.0f} MiB at the peak of a worker")
    if result.shortlist is not None:
        told = [f"{amount(result.shortlist.rows, 'row')}"] if result.shortlist.rows else []
        facts.add("shortlist", "; ".join([*told, *result.shortlist.notes]))
    entry = result.verified.to_json() if result.verified is not None else None
    if entry is not None:
        facts.add("verified", verified_in_words(entry))
    facts.add("selection", result.selection)
    for note in result.notes:
        facts.add("of it", note)
    facts.add("near-duplicates", result.near_duplicates.in_words())
    facts.add("report", report_path)
    facts.show()
    if entry is not None:
        _warn_of_differences(entry)


def verified(entry: Mapping[str, Any]) -> None:
    """Rows that were scored again, score by score."""
    facts = Facts(verified_in_words(entry))
    for name, found in entry["scores"].items():
        facts.add(name, f"{found['largest']:.1e}; row {found['row_id']:,} may differ by {found['allowed']:.1e}")
    facts.show()
    _warn_of_differences(entry)


def _warn_of_differences(entry: Mapping[str, Any]) -> None:
    for one in entry["wrong"]:
        errors.print(f"[bold red]WRONG SCORES:[/] {escape(one)}", soft_wrap=True)


def add_stages(facts: Facts, totals: Totals) -> None:
    """Where the workers' time went; stages overlap, so theirs are no shares of a whole."""
    bound = bounding_stage(totals.stages)
    if bound is None:
        return  # written by an older version, or nothing is scored yet
    seconds = ", ".join(f"{stage} {totals.stages.get(stage, 0.0):,.1f}" for stage in STAGES if stage != "idle")
    facts.add("stages", f"{seconds} s on all workers; device idle {idle_share(totals.stages):.0%}; '{bound}' bounds")


class Facts:
    """Two columns, label and value; a value is never folded, so that paths can be copied and scripts can read lines."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._rows: list[tuple[str, str]] = []

    def add(self, label: str, value: str) -> None:
        self._rows.append((label, value))

    def show(self) -> None:
        width = max((len(label) for label, _ in self._rows), default=0)
        console.print(f"[bold]{escape(self._title)}[/]", soft_wrap=True)
        for label, value in self._rows:
            console.print(f"  [dim]{escape(label.ljust(width))}[/]  {escape(value)}", soft_wrap=True)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
