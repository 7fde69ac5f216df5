"""Whether Triton's interpreter runs the kernels."""

import os

# As Triton reads it, when it is imported: from then on kernels are interpreted, or compiled.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
