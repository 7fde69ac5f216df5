"""A training step of a convolutional autoencoder: python -m device.training --device cuda ...

Compares AmplifiedSSIMLoss with MSELoss, with everything else equal: eager, compiled, and replayed
from a CUDA graph. Measures the wall-clock time of STEPS steps with one synchronization at the end;
the losses take turns.
"""

from typing import Any

import torch
from suite.cases import Shape, textured_pair
from suite.measure import Entry, digits, interleave, progress, reason_of
from suite.training_step import SEED, autoencoder

from device.program import NO_GRAPHS, Program, captured
from lamp_kernels import AmplifiedSSIMLoss

BATCHES = (8, 32, 64)
QUICK: Shape = (2, 3, 32, 32)
STEPS = 10  # per sample
COMPILING = 60.0  # seconds that must be left to compile the two steps
SSIM, MSE = "AmplifiedSSIMLoss", "torch MSELoss"
LOSSES = {SSIM: AmplifiedSSIMLoss, MSE: torch.nn.MSELoss}
HOW = ("eager", "captured", "compiled")


class Training(Program):
    """Measures one batch size after another, eager first."""

    def parts(self) -> None:
        """Measure all batch sizes and modes."""
        self.results.update(steps=STEPS, rows=[], ratios=[])
        shapes = [QUICK] if self.quick else [(batch, 3, 256, 256) for batch in BATCHES]
        for index, shape in enumerate(shapes):
            for how in HOW:
                progress(f"training step, {shape[0]}, {how}")
                self._compare(shape, how, first=index == 0)
                self.write()

    def _compare(self, shape: Shape, how: str, *, first: bool) -> None:
        reason = self._left_out(how, first=first)
        label: dict[str, Any] = {"shape": list(shape), "how": how}
        if reason is not None:
            self.results["rows"].append({**label, "skipped": reason})
            return
        target = textured_pair(shape)[1].to(self.device)
        try:
            entries = [
                Entry({**label, "loss": name}, self._steps(make(), target, how))
                for name, make in LOSSES.items()
            ]
        except Exception as error:  # continue with the other modes
            self.results["rows"].append({**label, "skipped": reason_of(error)})
            return
        low, high = (2, 3) if self.quick else (5, 30)
        rows = interleave(
            entries, budget=min(5.0, self.left() / 4), min_rounds=low, max_rounds=high,
            shortest=0.0, sample=self.clock(STEPS),
        )  # fmt: skip
        self.results["rows"] += rows
        ssim, mse = (row.get("p50") for row in rows)
        if ssim and mse:
            self.results["ratios"].append({**label, "ssim_over_mse": digits(ssim / mse)})

    def _left_out(self, how: str, *, first: bool) -> str | None:
        if how == "captured" and self.device.type != "cuda":
            return NO_GRAPHS
        if how == "compiled" and self.quick:
            return "compiling takes too long for a quick run"
        if how == "compiled" and not first:
            return "compiled only for the first batch size"
        needed = COMPILING if how == "compiled" else 3.0
        if not self.quick and self.left() < needed:
            return f"requires {needed:.0f} s, {self.left():.0f} s are left"
        return None

    def _steps(self, loss: torch.nn.Module, target: torch.Tensor, how: str) -> Any:
        torch.manual_seed(SEED)
        model = autoencoder(target.shape[1]).to(self.device)
        optimizer = torch.optim.Adam(model.parameters(), capturable=self.device.type == "cuda")

        def forward(images: torch.Tensor) -> torch.Tensor:
            value: torch.Tensor = loss(model(images), images)
            return value

        compute = torch.compile(forward) if how == "compiled" else forward

        def step() -> None:
            optimizer.zero_grad()
            compute(target).backward()
            optimizer.step()

        return captured(step) if how == "captured" else step


if __name__ == "__main__":
    Training.main(__doc__)
