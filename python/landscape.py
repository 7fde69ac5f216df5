#!/usr/bin/env python
"""Plot and measure the loss around the weights of networks trained by train.py.

python python/train.py --data fashion-mnist --compare mse,amplified-mse --out runs/fashion
python python/landscape.py runs/fashion
"""

import sys

from uad.cli.start import start

if __name__ == "__main__":
    sys.exit(start("landscape"))
