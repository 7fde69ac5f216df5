"""The benchmark suite: compares this library with other packages.

Run it with `bench/run.py`. `cases` and `contestants` are its data, `measure` its clock.
"""
