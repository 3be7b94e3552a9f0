"""Score a pool, and look at the batch as a table and as pictures.

    CONFIG=poolscore-demo/poolscore.yaml python -m poolscore.jobs.examples.look

The configuration is that of `poolscore demo`; any other with pictures will do.
"""

# %% The job, as `poolscore score` does it. The rows of a finished run are not scored again.
import base64
import os
from pathlib import Path

from poolscore.engine import RunDirectory, load_config, read_selection, score_pool, thumbnails

config = load_config(os.environ.get("CONFIG", "poolscore-demo/poolscore.yaml"))
result = score_pool(config)
print(f"{result.totals.scored:,} rows scored, {result.totals.rejected:,} rejected; the batch: {result.selection}")

# %% The batch is an Arrow table, best first: `.to_pandas()` where pandas is installed.
run = RunDirectory(result.run_dir)
batch = read_selection(run)
for row in batch.select(["rank", "id", "score", "prediction", "confidence"]).slice(0, 5).to_pylist():
    print(row)

# %% Its pictures, from the run's shortlist: no pool is read. A page of them; in a notebook: IPython.display.HTML(page)
pictures = thumbnails(run, batch["row_id"].to_pylist())
cells = [
    f'<img src="data:image/jpeg;base64,{base64.b64encode(pictures[row["row_id"]]).decode()}" title="{row["id"]}">'
    for row in batch.to_pylist()
    if row["row_id"] in pictures
]
page = "\n".join(cells)
Path("batch.html").write_text(page, encoding="utf-8")
print(f"{len(cells)} pictures in batch.html")
