"""The benchmark suite against other packages: what it measures, how, and what it draws.

`bench/run.py` is the command. `cases` and `contestants` are the data, `measure` the clock.
"""
