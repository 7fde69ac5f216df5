"""Triton's own choice of tiles at two shapes.

LAMP_KERNELS_TRITON_AUTOTUNE=1 python -m device.autotune --device cuda ...

Every candidate is compiled and timed by the library itself; here the winners are written out, with
the seconds that the search took, to judge the table in Triton's tiling.py by.
"""

from time import perf_counter
from typing import Any

from suite.cases import Shape, textured_pair
from suite.contestants import ON_GPU, TRITON
from suite.measure import progress, reason_of

from device.program import Program
from lamp_kernels.backends.triton import autotune

SHAPES: tuple[Shape, ...] = ((8, 3, 256, 256), (64, 1, 28, 28))


class Autotune(Program):
    """Shape by shape."""

    def parts(self) -> None:
        """Forward + backward of each shape, whose keys are then known."""
        if not autotune.wanted():
            raise SystemExit(
                f"{autotune.ENVIRONMENT_VARIABLE}=1 is needed, without the interpreter"
            )
        self.results["winners"] = []
        (triton,) = (contestant for contestant in ON_GPU if contestant.name == TRITON)
        for shape in SHAPES:
            progress(f"autotune, {shape}")
            known = set(autotune._quickest)
            start = perf_counter()
            row: dict[str, Any] = {"shape": list(shape)}
            try:
                images = [image.to(self.device) for image in textured_pair(shape)]
                triton.setup(*images).forward_backward()
            except Exception as error:  # the other shape goes on
                row["skipped"] = reason_of(error)
            row["seconds"] = round(perf_counter() - start, 1)
            row["chosen"] = [
                {"key": str(key), "tile": str(tile)}
                for key, tile in autotune._quickest.items()
                if key not in known
            ]
            self.results["winners"].append(row)
            self.write()


if __name__ == "__main__":
    Autotune.main(__doc__)
