"""Launches as they would be made on a GPU, up to the compiled kernel: what the arguments become.

A program of its own, for its process must not interpret: prints a JSON line for each launch.
"""

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from lamp_kernels import ops
from lamp_kernels.triton import launch, tiling

TARGET = GPUTarget("cuda", 90, 32)
BACKEND = make_backend(TARGET)


def run(self: JITFunction, *arguments: Any, grid: tuple[int], warmup: bool, **others: Any) -> None:
    """In the place of JITFunction.run: binds and specialises as that does; compiles if told to."""
    binder = create_function_from_signature(self.signature, self.params, BACKEND)
    bound, specialization, _ = binder(*arguments, **others)
    options, signature, constants, attributes = self._pack_args(
        BACKEND, others, bound, specialization, None
    )
    if COMPILES:
        source = ASTSource(self, signature, constants, attributes)
        triton.compile(source, target=TARGET, options=options.__dict__)
    told = {
        "case": index,
        "kernel": self.fn.__name__,
        "grid": grid[0],
        "warps": options.num_warps,
        "types": {k: v for k, v in signature.items() if v != "constexpr"},
        "constants": {k: str(bound[k]) for k, v in signature.items() if v == "constexpr"},
        "attributes": [str(value) for value in attributes.values() if value],
    }
    print(json.dumps(told))


def call(case: dict[str, Any]) -> None:
    """image_losses, or loss_map, of a case."""
    dtype = getattr(torch, case["dtype"])
    x, y = torch.rand(2, *case["shape"]).to(dtype).unbind(0)
    if first := case.get("first"):  # elements from the beginning of the memory
        x = torch.rand(first + x.numel())[first:].to(dtype).view(x.shape)
    if case.get("strided"):
        x, y = x.mT.contiguous().mT, y.mT.contiguous().mT
    real = torch.float64 if dtype == torch.float64 else torch.float32
    terms = case["terms"]
    weight = torch.rand(case["shape"][-2:], dtype=real)[None, None] if case["weighted"] else None
    options = ops.Options(
        "ssim" in terms, "mse" in terms, "l1" in terms,
        1.0, case["window_size"], 1.5, 0.01, 0.03, "reflect", 0.5, True, 1e-2,
    )  # fmt: skip
    if case.get("scale"):
        launch.scale_(x, torch.rand(x.shape[0], dtype=dtype))
    elif case.get("map"):
        launch.loss_map(x, y, torch.rand(len(terms), dtype=real), *options)
    elif case.get("own"):
        own = torch.rand(x.shape[0], len(terms), dtype=real)
        launch.image_losses(
            x, y, weight, own, [], "nothing", *options, "images", *case["gradients"]
        )
    else:
        shared = (None, [0.5] * len(terms), "batch")
        launch.image_losses(x, y, weight, *shared, *options, "batch", *case["gradients"])


COMPILES = json.loads(sys.argv[1])
JITFunction.run = run
launch._device = lambda device, dtype: tiling.CUDA  # type: ignore[assignment] # not cached
cases = json.loads(sys.argv[2])
for index in range(len(cases)):
    call(cases[index])
