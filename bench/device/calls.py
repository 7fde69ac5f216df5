"""The time a training loop sees: python -m device.calls --device cuda --seconds 20 --out FILE.json

Measures the wall-clock time of forward + backward, called CALLS times in a row with one
synchronization at the end, at training sizes: eager, which includes launches and Python, and
replayed from a CUDA graph, which does not.
"""

from suite.cases import Shape, textured_pair
from suite.contestants import FLOOR, FUSED, NATIVE, NATIVE_ZEROS, ON_GPU, REFERENCE, TRITON, select
from suite.measure import Entry, interleave, progress, reason_of

from device.program import NO_GRAPHS, Program, captured

SHAPES: tuple[Shape, ...] = ((8, 3, 256, 256), (64, 1, 28, 28))
QUICK_SHAPES: tuple[Shape, ...] = ((2, 1, 32, 32),)
NAMES = (NATIVE, NATIVE_ZEROS, FUSED, TRITON, REFERENCE, FLOOR)
CALLS = 100


class Calls(Program):
    """Measures one shape after another, with contestants taking turns."""

    def parts(self) -> None:
        """Measure eager and replayed calls in the same rounds."""
        among = [contestant for contestant in ON_GPU if contestant.name in NAMES]
        taken, skipped = select(among=among, device=self.device.type)
        self.results.update(calls=CALLS, skipped=skipped, rows=[])
        shapes = QUICK_SHAPES if self.quick else SHAPES
        low, high = (2, 3) if self.quick else (5, 50)
        for index, shape in enumerate(shapes):
            progress(f"calls, {shape}")
            images = [image.to(self.device) for image in textured_pair(shape)]
            entries = []
            for contestant in taken:
                for how in ("eager", "captured"):
                    label = {"contestant": contestant.name, "shape": list(shape), "how": how}
                    if how == "captured" and self.device.type != "cuda":
                        self.results["rows"].append({**label, "skipped": NO_GRAPHS})
                        continue
                    try:
                        call = contestant.setup(*images).forward_backward
                        entries.append(Entry(label, captured(call) if how == "captured" else call))
                    except Exception as error:  # continue with the others
                        self.results["rows"].append({**label, "skipped": reason_of(error)})
            self.results["rows"] += interleave(
                entries, budget=0.8 * self.left() / (len(shapes) - index), min_rounds=low,
                max_rounds=high, shortest=0.0, sample=self.clock(5 if self.quick else CALLS),
            )  # fmt: skip
            self.write()


if __name__ == "__main__":
    Calls.main(__doc__)
