"""Commands on pools: `pack` makes one, `doctor` examines one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poolscore.jobs import scripts, show
from poolscore.jobs.cli.options import AsJson, Pool


def pack(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder of images, .tar, Parquet pool, IDX, .npy, .npz or CSV.")
    ],
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Folder to write, also s3:// or gs://.")],
    labels: Annotated[Path | None, typer.Option(help="IDX or NumPy file with one label per row.")] = None,
    label_from_folder: Annotated[bool, typer.Option(help="An image's first folder is its label.")] = False,
    as_tensor: Annotated[bool, typer.Option(help="Keep image arrays as numbers instead of PNG.")] = False,
    array_key: Annotated[str | None, typer.Option(help="Array of a .npz that holds the rows.")] = None,
    label_key: Annotated[str | None, typer.Option(help="Array of a .npz that holds the labels.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of a CSV; default: comma, .tsv: tab.")] = None,
    id_column: Annotated[str, typer.Option(help="Name of the id column.")] = "id",
    image_column: Annotated[str, typer.Option(help="Name of the column of pictures.")] = "image",
    resize: Annotated[str | None, typer.Option(metavar="SIDE", help="Shorter side, or HEIGHTxWIDTH; pixels.")] = None,
    encode: Annotated[str, typer.Option(help="Resized pictures: jpeg, or png (without loss).")] = "jpeg",
    quality: Annotated[int, typer.Option(help="Of resized JPEGs.", min=1, max=100)] = 95,
    exif: Annotated[str, typer.Option(help="Resized pictures: ignore the camera's turn, or apply it.")] = "ignore",
    overwrite: Annotated[bool, typer.Option(help="Replace an older pool of `pack`.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.", min=1)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where a stopped pack left parts.")] = False,
) -> None:
    """A folder of images, tar files, a pool, IDX or NumPy arrays, or a CSV into a well-shaped Parquet pool.

    A pack that was stopped goes on where it was when it is given again.
    """
    from poolscore.engine.machine.cores import usable_cores
    from poolscore.jobs.pack import Resize
    from poolscore.jobs.pack import pack as run_pack

    with show.counting("packing") as progress:
        summary = run_pack(
            source,
            pool,
            labels=labels,
            label_from_folder=label_from_folder,
            as_tensor=as_tensor,
            array_key=array_key,
            label_key=label_key,
            delimiter=delimiter,
            resize=None if resize is None else Resize.of(resize, encode, quality, exif),
            id_column=id_column,
            image_column=image_column,
            overwrite=overwrite,
            workers=workers or usable_cores(),
            fresh=fresh,
            progress=progress,
        )
    show.done(str(summary))


def doctor(
    pool: Pool,
    id_column: Annotated[str, typer.Option(help="Name of the id column.")] = "id",
    rows: Annotated[int, typer.Option(help="Pictures to decode, about.", min=1)] = 256,
    as_json: AsJson = False,
) -> None:
    """The health of a pool: row groups, files, codecs, ids, a sample of pictures, and what to repack."""
    from poolscore.jobs.doctor import examine

    with show.busy("looking at the pool"):
        found = examine(pool, id_column=id_column, rows=rows)
    if as_json:
        scripts.result(found.to_dict())
    else:
        show.done(str(found))
