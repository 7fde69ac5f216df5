"""What `make gpu-bundle` made: libraries, the sweep program, other packages; nothing is built here.

gpu-bundle/
  lamp_kernels/*.so   the libraries, put beside the sources
  sweep               the stand-alone sweep of tilings
  wheels/*.whl        other packages, unpacked; no pip and no network is needed
  site/               modules as they are (a fused_ssim, if someone has put one there)
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
    """A folder that gpu-bundle made."""

    folder: Path

    @classmethod
    def find(cls, folder: Path = FOLDER) -> "Bundle | None":
        """The bundle, or None where there is none; an incomplete one is an error."""
        if not folder.is_dir():
            return None
        missing = [n for n in LIBRARIES if not (folder / "lamp_kernels" / n).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder.name}/lamp_kernels lacks {', '.join(missing)}: make gpu-bundle, or "
                "remove the folder to build on this machine"
            )
        return cls(folder)

    @property
    def sweep(self) -> Path | None:
        """The sweep program, or None where it was not built; copied modes may be lost."""
        path = self.folder / "sweep"
        if not path.is_file():
            return None
        path.chmod(0o755)
        return path

    def install(self, package: Path) -> list[str]:
        """Put the libraries into the package; their names."""
        for name in LIBRARIES:
            # Not written over: a library that a process has loaded would change under it.
            (package / name).unlink(missing_ok=True)
            shutil.copy2(self.folder / "lamp_kernels" / name, package / name)
        return list(LIBRARIES)

    def unpack(self, folder: Path) -> list[str]:
        """Unpack the wheels into `folder`; what is to go on PYTHONPATH."""
        for wheel in sorted(self.folder.glob("wheels/*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        return [str(self.folder / "site"), str(folder)]
