"""compute-sanitizer: accesses out of bounds, races in shared memory.

Over the stand-alone sweep program where there is one, which starts in no time, and else over
`device.small`.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from device.phases import FAILED, LEFT_OUT, OVERRAN, PASSED, Job, Phase, run_all

TOOLS = ("memcheck", "racecheck")
FOUND = 86  # the exit status that is to mean: it found something
# What the tool says where a virtual machine keeps it from the device.
REFUSED = re.compile(r"Device not supported|debugger is not supported", re.IGNORECASE)


def program(name: str = "compute-sanitizer") -> str | None:
    """Where a tool of the toolkit is: on PATH, or in the toolkit."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    folders = [str(Path(home, "bin")) for home in homes if home]
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])
    return shutil.which(name, path=path)


def run(device: str, folder: Path, limit: float, sweep: Path | None = None) -> Phase:
    """Both tools side by side; each process has a context of its own."""
    if device == "cpu":
        return Phase("sanitizer", LEFT_OUT, "not on this device: it checks CUDA kernels")
    command = program()
    if command is None:
        return Phase("sanitizer", LEFT_OUT, "compute-sanitizer was not found")
    small = [sys.executable, "-m", "device.small", "--device", device]
    checked = small if sweep is None else [str(sweep), "--check"]
    jobs = [
        Job(
            tool,
            # PyTorch asks the driver what it expects to fail; that is no error of the kernels.
            [command, "--tool", tool, "--error-exitcode", str(FOUND), "--report-api-errors", "no",
             *checked],
            # Else all tensors lie in a few large allocations, and few bounds are seen.
            {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if tool == "memcheck" else {},
        )
        for tool in TOOLS
    ]  # fmt: skip
    tools = []
    for ended in run_all(jobs, limit=limit, folder=folder, at_once=len(jobs)):
        summary = [line.strip("= ") for line in ended.output.splitlines() if "SUMMARY" in line]
        right = ended.returncode == 0 and bool(summary)
        status = ended.state if ended.state != "ended" else PASSED if right else FAILED
        if status == FAILED and REFUSED.search(ended.output):
            status = LEFT_OUT
        tool = {"tool": ended.name, "status": status, "seconds": ended.seconds}
        tool |= {"summary": " ".join(summary), "exit": ended.returncode}
        tools.append(tool if status == PASSED else {**tool, "output": ended.output})
    details = {
        "program": Path(command).name,
        "checked": "device.small" if sweep is None else "sweep --check",
        "tools": tools,
    }
    failed = [str(tool["tool"]) for tool in tools if tool["status"] == FAILED]
    unfinished = [
        str(tool["tool"]) for tool in tools if tool["status"] not in (PASSED, FAILED, LEFT_OUT)
    ]
    if failed:
        return Phase("sanitizer", FAILED, ", ".join(failed), details=details)
    refused = [str(tool["tool"]) for tool in tools if tool["status"] == LEFT_OUT]
    if refused:
        reason = f"{', '.join(refused)}: the sanitizer does not support this device"
        return Phase("sanitizer", LEFT_OUT, reason, details=details)
    if unfinished:
        return Phase("sanitizer", OVERRAN, ", ".join(unfinished), details=details)
    return Phase("sanitizer", PASSED, details=details)
