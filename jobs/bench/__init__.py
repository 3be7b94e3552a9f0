"""`poolscore bench`: rows a second of one worker, end to end and stage by stage.

`subjects.py` and `networks.py` say what is built in, `pools.py` makes rows for it. `measure.py` takes one point, from
what `steady.py` and `parts.py` time; `point.py` says what follows from it, `sweep.py` takes all points. `tell.py`,
`page.py` and `compare.py` show results.
"""
