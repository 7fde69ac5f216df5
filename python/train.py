#!/usr/bin/env python
"""Train reconstruction networks on normal images, detect anomalies with them, compare losses.

python python/train.py --data textures --compare mse,amplified-mse
torchrun --nproc-per-node=2 python/train.py --data textures
"""

import sys

from uad.cli.start import start

if __name__ == "__main__":
    sys.exit(start("train"))
