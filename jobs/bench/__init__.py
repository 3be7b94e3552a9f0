"""`poolscore bench`: rows a second of one worker, end to end and stage by stage.

`subjects.py` and `networks.py` say what is built in, `pools.py` makes rows for it, `measure.py` takes one point,
`sweep.py` all of them; `compare.py` and `page.py` show results.
"""
