#!/usr/bin/env python
"""Train with many losses, data sets and seeds, and report how the losses differ and how surely.

python python/study.py run python/grids/full.json --results python/results/study.jsonl
python python/study.py publish python/results/study.jsonl
"""

import sys

from uad.cli.start import start

if __name__ == "__main__":
    sys.exit(start("study"))
