"""What the measuring programs share: the command line, the time left, the file, a captured call."""

import argparse
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from suite.measure import Entry

NO_GRAPHS = "not on this device: CUDA graphs"  # why a row has no "captured"


class Program(ABC):
    """Measures part by part into `results`, as far as the time goes.

    The file is written anew after each part: whoever ends the process has the parts before.
    """

    def __init__(self, device: torch.device, seconds: float, out: Path, *, quick: bool) -> None:
        self._deadline = monotonic() + seconds
        self._out = out
        self.device, self.quick = device, quick
        self.results: dict[str, Any] = {"torch": torch.__version__}

    @abstractmethod
    def parts(self) -> None:
        """Measure."""

    def left(self) -> float:
        """Seconds."""
        return self._deadline - monotonic()

    def wait(self) -> None:
        """Return when the device has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def clock(self, calls: int) -> Callable[[Entry], float]:
        """For `interleave`: seconds of one of so many calls in a row, with one wait at the end."""

        def sample(entry: Entry) -> float:
            self.wait()
            start = perf_counter()
            for _ in range(calls):
                entry.call()
            self.wait()
            return (perf_counter() - start) / calls

        return sample

    def write(self) -> None:
        """Write the file."""
        self._out.write_text(json.dumps(self.results), encoding="utf-8")

    @classmethod
    def main(cls, description: str | None) -> None:
        """The command line."""
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
    """A CUDA graph of the call; returns its replay.

    It runs three times beforehand on a stream of its own: what is made at the first call, an
    optimizer's state for one, must not be a part of the graph.
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
