"""Uses what `make gpu-bundle` built; nothing is built here.

gpu-bundle/
  lamp_kernels/*.so   the libraries, copied next to the sources
  sweep               the stand-alone sweep of tilings
  wheels/*.whl        other packages, unpacked without pip or a network
  site/               modules used as they are (fused_ssim, if someone put it there)
"""

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from checkout import ROOT

FOLDER = ROOT / "gpu-bundle"
LIBRARIES = ("_C.abi3.so", "_C_cuda.abi3.so")


@dataclass(frozen=True)
class Bundle:
    """A folder that gpu-bundle wrote."""

    folder: Path

    @classmethod
    def find(cls, folder: Path = FOLDER) -> "Bundle | None":
        """The bundle, or None if there is none; raise FileNotFoundError if it is incomplete."""
        if not folder.is_dir():
            return None
        missing = [n for n in LIBRARIES if not (folder / "lamp_kernels" / n).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder.name}/lamp_kernels has no {', '.join(missing)}: run make gpu-bundle, or "
                "remove the folder to build on this machine"
            )
        return cls(folder)

    @property
    def sweep(self) -> Path | None:
        """The sweep program, made executable (copying may lose the mode), or None if not built."""
        path = self.folder / "sweep"
        if not path.is_file():
            return None
        path.chmod(0o755)
        return path

    def install(self, package: Path) -> list[str]:
        """Copy the libraries into the package and return their names."""
        for name in LIBRARIES:
            # Unlink first: overwriting a library would change it under a process that loaded it.
            (package / name).unlink(missing_ok=True)
            shutil.copy2(self.folder / "lamp_kernels" / name, package / name)
        return list(LIBRARIES)

    def unpack(self, folder: Path) -> list[str]:
        """Unpack the wheels into `folder`; return the folders to put on PYTHONPATH."""
        for wheel in sorted(self.folder.glob("wheels/*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        return [str(self.folder / "site"), str(folder)]
