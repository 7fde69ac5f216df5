#!/usr/bin/env python
"""Train under many losses, data sets and seeds, and say what the losses differ in, and how surely.

python python/study.py run python/grids/full.json --results python/results/study.jsonl
python python/study.py publish python/results/study.jsonl
"""

import sys

from uad.cli.study import main

if __name__ == "__main__":
    sys.exit(main())
