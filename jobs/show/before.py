"""What is told before a run: the plan, what settings cost, labelled rows, a model that was written, and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from poolscore.engine.pool.changes import named
from poolscore.engine.words import amount
from poolscore.jobs.show.terminal import Facts, console, done, duration, warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolscore.engine.before.advise import Advised
    from poolscore.engine.before.check import CheckResult
    from poolscore.engine.model.dropout import DropoutLayer
    from poolscore.engine.model.export import Exported
    from poolscore.engine.prepare import Prepared

NAMED = 3  # files, of many


def plan(prepared: Prepared) -> None:
    """What the dry run found."""
    config, pool, probe = prepared.config, prepared.plan, prepared.job.probe
    facts = Facts(f"plan for {config.pool.uri}")
    for label, value in _pool(prepared):
        facts.add(label, value)
    if prepared.listed:
        facts.add("exclude", f"{prepared.listed:,} ids are listed as labelled already")
    facts.add("shards", f"{len(pool.shards):,}: {_spread(pool.shards.rows)} rows")
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
    whole = duration(pool.expected_rows / rate)
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
        table.add_row(str(one.passes), escape(layers), one.precision, duration(one.seconds), *shares)
    console.print(table)
    done(
        "For the pool: without reading, decoding and torch.compile. Correlation and overlap: with the last "
        "line, the fullest setting. Stability: how much of the top two halves of the passes agree on."
    )


def warnings(prepared: Prepared) -> None:
    """What must not be overlooked."""
    for note in prepared.extension.notes if prepared.extension is not None else ():
        warn(note)
    if prepared.came:
        which = f"{amount(len(prepared.came), 'file')} ({named(prepared.came)})"
        how = f"score --extend {prepared.config.run.dir} --set run.dir=ANOTHER"
        warn(f"this run goes on with the files that it was begun with; the pool has gained {which}: {how} scores those")
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
