"""Profile the stages of the CPU kernel: perf samples of the kernel running by itself.

python bench/kernel_profile.py                  # requires g++ and perf (Debian: linux-perf)
LAMP_KERNELS_CPU_ISA=avx2 python bench/kernel_profile.py
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from checkout import ROOT

SECONDS = 10
# As in setup.py, but keeping function names.
FLAGS = ["-std=c++20", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-g1"]
STAGES = {
    "convolve_row": "read rows, form difference and sum",
    "convolve_pixels": "windows along x",
    "statistics": "windows along y, loss, h planes",
    "adjoint_x": "adjoint along x",
    "adjoint_y": "adjoint along y",
    "pixel_row": "write gradient",
}


def main() -> int:
    """Compile, sample and print a table; return the exit status."""
    for tool in ("g++", "perf"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed", file=sys.stderr)
            return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = ["bench/kernel_profile.cpp", *map(str, sorted(ROOT.glob("csrc/cpu/*.cpp")))]
        command = [
            "g++",
            *FLAGS,
            "-Wno-psabi",
            "-Icsrc",
            *sources,
            "-o",
            str(folder / "kernel_profile"),
        ]
        subprocess.run(command, cwd=ROOT, check=True)
        data = str(folder / "perf.data")
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-o", data]
        subprocess.run([*record, str(folder / "kernel_profile"), str(SECONDS)], check=True)
        report = ["perf", "report", "--stdio", "--no-inline", "-F", "overhead,symbol", "-i", data]
        done = subprocess.run(report, capture_output=True, text=True, check=True)
    shares = dict.fromkeys(STAGES, 0.0)
    rest = 0.0
    for percent, symbol in re.findall(r"^\s+([\d.]+)%\s+\[\S\]\s+(.*)$", done.stdout, re.MULTILINE):
        stage = next((stage for stage in STAGES if re.search(rf"\b{stage}\b", symbol)), "")
        if stage:
            shares[stage] += float(percent)
        else:
            rest += float(percent)
    for stage, what in STAGES.items():
        print(f"{stage:<16} {shares[stage]:5.1f} %  {what}")
    print(f"{'other':<16} {rest:5.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
