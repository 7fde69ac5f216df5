#!/usr/bin/env python
"""Anomaly scores and heat maps for a folder of images, from a network that train.py has trained.

python python/score.py runs/bottle/amplified-ssim/checkpoint.pt photos --normal good --out scores
"""

import sys

from uad.cli.score import main

if __name__ == "__main__":
    sys.exit(main())
