"""Keeps PyTorch's warning about NumPy out of the output of `python -m lamp_kernels`.

Without NumPy, `import torch` warns that it failed to initialize NumPy. This package does not use
NumPy, so in the report on an installation that would look like a problem. Python imports the
package, and with it torch, before it runs `__main__.py`; therefore the package has to import this
module first. In any other program the warning is left as it is.
"""

import sys
import warnings

if ("-m", "lamp_kernels") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False):
    warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)
