"""Amplified reconstruction losses (LAMP) for unsupervised anomaly detection.

`AmplifiedSSIMLoss()` stands where `torch.nn.MSELoss()` stood. See README.md for options and
for what is and is not known of LAMP (Loss AMPlification, arXiv 2308.14595).
"""

from lamp_kernels import backends, functional
from lamp_kernels._version import __version__
from lamp_kernels.functional import amplify
from lamp_kernels.modules import (
    AmplifiedCharbonnierLoss,
    AmplifiedL1Loss,
    AmplifiedMSELoss,
    AmplifiedMSSSIMLoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
)
from lamp_kernels.range_check import RangeCheck, check_range

__all__ = [
    "AmplifiedCharbonnierLoss",
    "AmplifiedL1Loss",
    "AmplifiedMSELoss",
    "AmplifiedMSSSIMLoss",
    "AmplifiedReconstructionLoss",
    "AmplifiedSSIMLoss",
    "RangeCheck",
    "__version__",
    "amplify",
    "backends",
    "check_range",
    "functional",
]
