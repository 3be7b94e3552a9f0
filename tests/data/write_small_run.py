"""Write the small run that is committed for each format of a run directory: run_format_1 is of poolscore 0.1.0.

    python tests/data/write_small_run.py tests/data/run_format_2

To be called once, when a format is new (`FORMAT` in engine/run/directory.py), and never for an older one: what matters
is that newer code reads what older code wrote.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS))

import nets  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from poolscore.engine.config import parse_config  # noqa: E402
from poolscore.engine.score import score_pool  # noqa: E402
from poolscore.jobs.cli import app  # noqa: E402
from poolscore.jobs.demo import read_digits  # noqa: E402
from poolscore.jobs.pack.picture import png_bytes  # noqa: E402

ROWS, BROKEN, SENT = 40, 7, 11


def main(to: Path) -> None:
    """Score 40 digits in two shards, one of them broken and one excluded, and select twice."""
    folder = Path(tempfile.mkdtemp())  # which is gone when the run is read
    digits, labels = read_digits()
    images = [png_bytes(picture) for picture in digits[:ROWS]]
    images[BROKEN] = b"no picture"
    ids = [f"digit-{i:02d}" for i in range(ROWS)]
    pool = pa.table({"id": ids, "image": images, "label": labels[:ROWS]})
    pq.write_table(pool, folder / "pool.parquet", row_group_size=20)
    (folder / "sent.csv").write_text(f"id\n{ids[SENT]}\n")
    torch.manual_seed(0)
    torch.save(nets.cnn().state_dict(), folder / "weights.pt")
    config = parse_config(
        {
            "pool": {"uri": "pool.parquet", "input": "image", "decode": {"mode": "L"}, "id": "id", "keep": ["label"]}
            | {"exclude": "sent.csv"},
            "model": {"source": "nets:cnn", "weights": "weights.pt", "task": "multiclass", "classes": 10},
            "passes": {"count": 3},
            "select": {"k": 5},
            "shortlist": {"rows": 8},
            "run": {"dir": "run", "executor": "local", "shard_rows": 20, "max_bad_fraction": 1.0},
        },
        base=folder,
    )
    score_pool(config)
    again = CliRunner().invoke(app, ["select", config.run.dir, "--name", "margin", "--score", "margin", "--k", "4"])
    assert again.exit_code == 0, again.output
    shutil.copytree(config.run.dir, to)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
