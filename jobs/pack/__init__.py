"""`pack`: a folder of images, a CSV, or IDX or NumPy arrays into a well-shaped Parquet pool.

    from poolscore.jobs.pack import pack
    print(pack("photos/", "pool/", label_from_folder=True))

Needs pyarrow, numpy and Pillow only: neither torch nor Ray is imported. To read in this order: `contract.py` (what goes
in and out), `command.py` (the function), one file a source (`folder.py`, `idx.py`, `numpy_files.py`, `table.py`, with
`arrays.py` and `picture.py` under them), `writer.py` (row groups, files, the atomic commit).
"""

from poolscore.jobs.pack.command import pack
from poolscore.jobs.pack.contract import PackSummary, Progress

__all__ = ["PackSummary", "Progress", "pack"]
