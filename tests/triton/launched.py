"""Launches as on a GPU, up to the compiled kernel: what the arguments become.

A separate program, because its process must not interpret. Prints a JSON line for each launch.
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
from lamp_kernels.backends.triton import device, launch, tiling
from lamp_kernels.spec import LossSpec, Term

TARGET = GPUTarget("cuda", 90, 32)
BACKEND = make_backend(TARGET)


def run(self: JITFunction, *arguments: Any, grid: tuple[int], warmup: bool, **others: Any) -> None:
    """Replaces JITFunction.run: binds and specializes as that does; compiles if told to."""
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
    compute_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    terms = case["terms"]
    mask = torch.ones(1, 1, 1, 1, dtype=compute_dtype) if case.get("masked") else None
    ranges = torch.rand(x.shape[0], dtype=compute_dtype) if case.get("ranges") else None
    weight = (
        torch.rand(case["shape"][-2:], dtype=compute_dtype)[None, None]
        if case["weighted"]
        else None
    )
    spec = LossSpec(tuple(map(Term, terms)), window_size=case["window_size"])
    flat = ops.FlatSpec.of(spec)
    if case.get("scale"):
        launch.scale_(x, torch.rand(x.shape[0], dtype=dtype))
    elif case.get("map"):
        launch.loss_map(x, y, None, None, torch.rand(len(terms), dtype=compute_dtype), *flat)
    elif case.get("own"):
        own = torch.rand(x.shape[0], len(terms), dtype=compute_dtype)
        launch.image_losses(
            x, y, weight, mask, ranges, own, (), "nothing", "images", *case["gradients"], *flat
        )
    else:
        shared = (None, [0.5] * len(terms), "batch")
        launch.image_losses(x, y, weight, mask, ranges, *shared, "batch", *case["gradients"], *flat)


COMPILES = json.loads(sys.argv[1])
JITFunction.run = run
device.properties = lambda *_: tiling.CUDA  # type: ignore[assignment] # without a cache
cases = json.loads(sys.argv[2])
for index in range(len(cases)):
    call(cases[index])
