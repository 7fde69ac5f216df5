"""Shared by the measuring programs: command line, remaining time, results file, captured calls."""

import argparse
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from suite.measure import Entry

NO_GRAPHS = "CUDA graphs are not available on this device"  # why a "captured" row is skipped


class Program(ABC):
    """Measures part after part into `results`, as far as the time allows.

    The file is rewritten after each part: if the process is killed, the finished parts remain.
    """

    def __init__(self, device: torch.device, seconds: float, out: Path, *, quick: bool) -> None:
        self._deadline = monotonic() + seconds
        self._out = out
        self.device, self.quick = device, quick
        self.results: dict[str, Any] = {"torch": torch.__version__}

    @abstractmethod
    def parts(self) -> None:
        """Measure all parts."""

    def left(self) -> float:
        """The remaining seconds."""
        return self._deadline - monotonic()

    def wait(self) -> None:
        """Wait until the device is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def clock(self, calls: int) -> Callable[[Entry], float]:
        """For `interleave`: seconds per call, over `calls` calls with one wait at the end."""

        def sample(entry: Entry) -> float:
            self.wait()
            start = perf_counter()
            for _ in range(calls):
                entry.call()
            self.wait()
            return (perf_counter() - start) / calls

        return sample

    def write(self) -> None:
        """Write the results file."""
        self._out.write_text(json.dumps(self.results), encoding="utf-8")

    @classmethod
    def main(cls, description: str | None) -> None:
        """Parse the command line, measure, and write the results."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--device", required=True)
        parser.add_argument("--seconds", type=float, required=True)
        parser.add_argument("--out", type=Path, required=True)
        parser.add_argument("--quick", action="store_true")
        arguments = parser.parse_args()
        device = torch.device(arguments.device)
        if device.type == "cuda":
            torch.cuda.set_device(device.index or 0)
        program = cls(device, arguments.seconds, arguments.out, quick=arguments.quick)
        program.parts()
        program.results["complete"] = True
        program.write()


def captured(call: Callable[[], Any]) -> Callable[[], None]:
    """Capture the call in a CUDA graph and return the graph's replay.

    The call first runs three times on a side stream: whatever the first call creates, such as an
    optimizer's state, must not become part of the graph.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
