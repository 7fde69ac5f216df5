"""Where the tests of this folder find what builds the driver."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
