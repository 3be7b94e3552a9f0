"""Everything that can be known before hours are spent: the pool's shape, the model's dropout, one batch scored.

`job.py` has the function. It asks `pool.py` for files, columns and the plan, `rows.py` for the first rows, `model.py`
for a model that scores them, `batch_size.py` for the size 'auto', which `fastest_batch.py` measures, and `begun.py` for
the run that is there already.
"""

from poolscore.engine.prepare.job import Prepared, prepare_job
from poolscore.engine.prepare.pool import look_at_labelled
from poolscore.engine.prepare.rows import read_sample

__all__ = ["Prepared", "look_at_labelled", "prepare_job", "read_sample"]
