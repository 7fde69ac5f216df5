"""The tiles that Triton autotuning selects, at two shapes.

LAMP_KERNELS_TRITON_AUTOTUNE=1 python -m device.autotune --device cuda ...

The library compiles and times every candidate. This program records the winners and the seconds
that the search took, to check the table in Triton's tiling.py against them.
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
    """Autotunes one shape after another."""

    def parts(self) -> None:
        """Run forward + backward for each shape and record the new winners."""
        if not autotune.wanted():
            raise SystemExit(f"set {autotune.ENVIRONMENT_VARIABLE}=1 and unset TRITON_INTERPRET")
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
            except Exception as error:  # continue with the other shape
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
