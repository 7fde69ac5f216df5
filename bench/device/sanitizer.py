"""compute-sanitizer: checks for out-of-bounds accesses and races in shared memory.

Checks the stand-alone sweep program if it was built, because it starts instantly, and otherwise
`device.small`.
"""

import re
import sys
from pathlib import Path

from device.phases import FAILED, PASSED, SKIPPED, TIMED_OUT, Job, Phase, run_all
from device.toolkit import find_tool

TOOLS = ("memcheck", "racecheck")
FOUND = 86  # the exit status requested for "found an error"
# The message if a virtual machine denies the tool access to the device.
REFUSED = re.compile(r"Device not supported|debugger is not supported", re.IGNORECASE)


def run(device: str, folder: Path, limit: float, sweep: Path | None = None) -> Phase:
    """Run both tools in parallel; each process has its own CUDA context."""
    if device == "cpu":
        return Phase("sanitizer", SKIPPED, "not available on the CPU: it checks CUDA kernels")
    command = find_tool("compute-sanitizer")
    if command is None:
        return Phase("sanitizer", SKIPPED, "compute-sanitizer was not found")
    small = [sys.executable, "-m", "device.small", "--device", device]
    checked = small if sweep is None else [str(sweep), "--check"]
    jobs = [
        Job(
            tool,
            # PyTorch makes driver calls that it expects to fail; these are no kernel errors.
            [command, "--tool", tool, "--error-exitcode", str(FOUND), "--report-api-errors", "no",
             *checked],
            # Otherwise tensors share a few large allocations, and the tool sees few bounds.
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
            status = SKIPPED
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
        str(tool["tool"]) for tool in tools if tool["status"] not in (PASSED, FAILED, SKIPPED)
    ]
    if failed:
        return Phase("sanitizer", FAILED, ", ".join(failed), details=details)
    refused = [str(tool["tool"]) for tool in tools if tool["status"] == SKIPPED]
    if refused:
        reason = f"{', '.join(refused)}: the sanitizer does not support this device"
        return Phase("sanitizer", SKIPPED, reason, details=details)
    if unfinished:
        return Phase("sanitizer", TIMED_OUT, ", ".join(unfinished), details=details)
    return Phase("sanitizer", PASSED, details=details)
