"""Whether Triton's interpreter runs the kernels."""

import os

# Read the way Triton reads it when imported; from then on it interprets kernels, or compiles them.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
