#!/usr/bin/env python
"""Export a network trained by train.py, with its anomaly map and score, to one file.

python python/export.py runs/bottle --format onnx --out bottle.onnx
"""

import sys

from uad.cli.start import start

if __name__ == "__main__":
    sys.exit(start("export"))
