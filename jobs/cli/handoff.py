"""Commands for handing a batch over to people, and for what they answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from poolscore.engine.errors import ConfigError
from poolscore.engine.words import amount
from poolscore.jobs import scripts, show
from poolscore.jobs.cli.options import AsJson

Labels = Annotated[str, typer.Option(metavar="FILE", help="Parquet of the labels; beside it lie all answers.")]
Classes = Annotated[str | None, typer.Option(help="Names of the classes, in their order: a,b,c or a JSON list.")]
Named = Annotated[str | None, typer.Option("--name", help="A further selection of the run.")]

label = typer.Typer(help="Labels from what people answered.", no_args_is_help=True)


def export_tasks(
    selection: Annotated[str, typer.Argument(metavar="SELECTION", help="A run, or the file of a selection.")],
    to: Annotated[str, typer.Option(help="labelstudio, cvat, csv, jsonl or folder.")],
    out: Annotated[str, typer.Option(help="A new folder, local or in object storage.")],
    name: Named = None,
    run: Annotated[str | None, typer.Option(help="Of a selection file that does not lie in its run.")] = None,
    predictions: Annotated[bool, typer.Option("--predictions", help="Show them; people then tend to agree.")] = False,
    url_column: Annotated[str | None, typer.Option(help="Kept column of URLs, instead of the pictures.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--show", metavar="COLUMN", help="What people see; default: the inputs.")
    ] = None,
    classes: Classes = None,
    files_at: Annotated[str | None, typer.Option(help="URL or path before files/… in Label Studio's tasks.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order, which is shuffled.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Hand a selection over to people: pictures, text or numbers of its rows, without what the model thinks of them."""
    from poolscore.jobs.tasks import export_tasks as write_tasks

    with show.busy("copying the rows"):
        done = write_tasks(
            selection,
            out,
            to,
            name=name,
            run=run,
            predictions=predictions,
            url_column=url_column,
            show=columns or (),
            classes=_names(classes),
            files_at=files_at,
            seed=seed,
        )
    if as_json:
        scripts.result(asdict(done))
        return
    again = ", which were there already" if done.again else ""
    show.done(f"{amount(done.rows, 'task')} in {done.out}{again}: {', '.join(done.files)}")
    show.done(f"next, with what people answer: poolscore label import {done.out} ANSWERS --labels labels.parquet")


@label.command("import")
def import_(
    tasks: Annotated[str, typer.Argument(metavar="TASKS", help="Folder of an export, or its tasks.json.")],
    annotations: Annotated[list[str], typer.Argument(metavar="ANNOTATIONS…", help="Files (or folders) of answers.")],
    labels: Labels,
    annotators: Annotated[
        str | None, typer.Option(help="Where several answered: majority, all (a row each) or refuse.")
    ] = None,
    classes: Classes = None,
    annotator: Annotated[str, typer.Option(help="Who answered, where the files do not say.")] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Let new answers replace a person's earlier ones.")
    ] = False,
    with_inputs: Annotated[bool, typer.Option("--with-inputs", help="Carry the model's input columns, too.")] = False,
    round_number: Annotated[int | None, typer.Option("--round", help="For the column of that name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add answers to the labels; what comes later is added later."""
    from poolscore.jobs.label import import_labels

    with show.busy("reading the answers"):
        done = import_labels(
            tasks,
            annotations,
            labels,
            annotators=annotators,
            classes=_names(classes),
            annotator=annotator,
            replace_old=replace,
            with_inputs=with_inputs,
            round_number=round_number,
        )
    if as_json:
        scripts.result(asdict(done))
        return
    if done.disputed:
        ids = ", ".join(done.disputed[:10]) + (", …" if len(done.disputed) > 10 else "")
        show.warn(f"{amount(len(done.disputed), 'row')} with answers that are tied have no label: {ids}")
    show.done(
        f"{amount(done.answers, 'answer')}, {done.new:,} of them new; of the export {done.labelled:,} labelled, "
        f"{done.skipped:,} skipped, {len(done.disputed):,} disputed, {done.pending:,} pending; "
        f"{amount(done.rows, 'row')} in {done.labels}"
    )


@label.command()
def status(
    tasks: Annotated[list[str], typer.Argument(metavar="TASKS…", help="Folders of exports, or their tasks.json.")],
    labels: Annotated[str | None, typer.Option(metavar="FILE", help="The labels; default: none came back yet.")] = None,
    out: Annotated[str | None, typer.Option(help="Parquet: id and state of each row; also an exclude list.")] = None,
    as_json: AsJson = False,
) -> None:
    """What became of the rows that were handed over: labelled, skipped, disputed or pending."""
    from poolscore.jobs.label import label_status

    found = label_status(tasks, labels, out)
    if as_json:
        scripts.result([asdict(each) for each in found])
        return
    for each in found:
        show.done(
            f"{each.tasks} ({each.selection}, {each.to}): {each.sent:,} sent; {each.labelled:,} labelled, "
            f"{each.skipped:,} skipped, {each.disputed:,} disputed, {each.pending:,} pending"
        )


@label.command()
def worth(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run, or the file of a selection.")],
    labels: Labels,
    name: Named = None,
    rare: Annotated[str | None, typer.Option(help="Rare classes; default: those rarely predicted in the pool.")] = None,
    as_json: AsJson = False,
) -> None:
    """Was it worth it? Errors of the model and rare classes in the batch, against its hidden control."""
    from poolscore.jobs.label import verdict, was_it_worth_it

    found = was_it_worth_it(run, labels, name=name, rare=_names(rare))
    if as_json:
        scripts.result({**asdict(found), "verdict": verdict(found)})
        return
    show.done(
        f"{found.selection}: {found.labelled:,} of {found.rows - found.control_rows:,} chosen rows and "
        f"{found.control_labelled:,} of {found.control_rows:,} control rows are labelled; intervals are 95 %"
    )
    for line in verdict(found):
        show.done(f"- {line}")


def _names(given: str | None) -> list[str] | None:
    """Names as an option gives them: a JSON list, where they may hold commas, or between commas."""
    if given is None or not given.startswith("["):
        return given.split(",") if given is not None else None
    try:
        names = json.loads(given)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f'{given}: expected names, as a,b or ["a", "b"]')
    return names
