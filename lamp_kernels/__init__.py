"""Amplified reconstruction losses (LAMP) for unsupervised anomaly detection.

`AmplifiedSSIMLoss()` replaces `torch.nn.MSELoss()`. README.md describes the options and says what
is and is not known about LAMP (Loss AMPlification, arXiv 2308.14595).
"""

from lamp_kernels import _numpy_warning  # noqa: F401, I001  before anything that imports torch
from lamp_kernels import backends, functional
from lamp_kernels._version import __version__
from lamp_kernels.functional import amplify
from lamp_kernels.modules import *  # noqa: F403  the losses
from lamp_kernels.modules import __all__ as _losses
from lamp_kernels.range_check import RangeCheck, check_range

__all__ = ["RangeCheck", "__version__", "amplify", "backends", "check_range", "functional"]
__all__ += _losses
