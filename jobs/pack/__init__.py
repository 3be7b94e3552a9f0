"""`pack`: a folder of images, a CSV, or IDX or NumPy arrays into a well-shaped Parquet pool.

    from poolscore.jobs.pack import pack
    print(pack("photos/", "pool/", label_from_folder=True))

Neither torch nor Ray is imported. To read in this order: `contract.py` (what goes in and out), `command.py` (the
function), one file a source (`folder.py`, `tar.py`, `parquet.py`, `idx.py`, `numpy_files.py`, `table.py`, with
`arrays.py`, `pictures.py`, `picture.py` and `resize.py` under them), `fill.py` (the loop: `workers.py` do the work,
`writer.py` cuts row groups and files and commits them, `parts.py` knows a pool's files again, `journal.py` and
`set_aside.py` keep what the next try and the user need), `destination.py` and `bucket.py` (where files are written: a
local folder, object storage).
"""

from poolscore.jobs.pack.command import pack
from poolscore.jobs.pack.contract import PackSummary, Progress
from poolscore.jobs.pack.resize import Resize

__all__ = ["PackSummary", "Progress", "Resize", "pack"]
