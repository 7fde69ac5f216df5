#!/usr/bin/env python
"""Compute anomaly scores and heat maps for a folder of images with a network trained by train.py.

python python/score.py runs/bottle/amplified-ssim/checkpoint.pt photos --normal good --out scores
"""

import sys

from uad.cli.start import start

if __name__ == "__main__":
    sys.exit(start("score"))
