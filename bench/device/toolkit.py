"""Finds the programs of the CUDA toolkit."""

import os
import shutil
from pathlib import Path


def find_tool(name: str) -> str | None:
    """Find a program on PATH, in CUDA_HOME or in /usr/local/cuda."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    folders = [str(Path(home, "bin")) for home in homes if home]
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])
    return shutil.which(name, path=path)
