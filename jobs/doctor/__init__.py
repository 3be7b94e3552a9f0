"""`doctor`: the health of a Parquet pool, and the command that mends it.

    from poolscore.jobs.doctor import examine
    print(examine("photos/"))

Reads all footers (`engine/pool/health.py` judges them), a sample of ids and a sample of pictures, local or in object
storage. Neither torch nor Ray is imported. `examine.py` is the function, `sample.py` reads the samples.
"""

from poolscore.jobs.doctor.examine import Examination, examine

__all__ = ["Examination", "examine"]
