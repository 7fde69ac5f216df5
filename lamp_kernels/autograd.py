"""The derivatives of the operators.

`image_losses` computes the gradients in the pass that computes the losses; the backward pass only
multiplies them, in place if possible. The autograd node keeps the gradients as attributes and not
as tensors saved for backward, so hooks on saved tensors (torch.autograd.graph.save_on_cpu,
checkpoints) do not see them. A direct call of the operator may request no gradients and still
differentiate the losses: then the backward pass computes them. If `sums` is "terms", the upstream
gradient differs from term to term: the forward pass computes only values, and the backward pass
calls the operator again with the upstream gradient multiplied into `factors`. The backward pass of
the map is `image_losses` with the upstream gradient as its weight.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad

from lamp_kernels import transforms
from lamp_kernels.ops import FlatSpec, Operators, call
from lamp_kernels.reduction import SharedFactors
from lamp_kernels.tensors import numbers_beside

NO_SECOND_DERIVATIVE = (
    "the kernels of lamp_kernels have no second derivative; use backend='reference'"
)

NO_BATCHED_GRADIENTS = (
    "the kernels of lamp_kernels do not support is_grads_batched=True; use torch.vmap over the "
    "function that torch.func.vjp returns, or backend='reference'"
)

NO_FORWARD_MODE = (
    "the kernels of lamp_kernels have no forward-mode derivative; use backend='reference'"
)


def register(library: str, operators: Operators) -> None:
    """Register the derivatives of the operators in `library`."""
    fragment = torch.library.Library(library, "FRAGMENT")
    _fragments.append(fragment)
    for name, kernel in (
        (
            "image_losses",
            _autograd_kernel(
                operators.image_losses, _keep_losses, partial(_backward_of_losses, operators)
            ),
        ),
        (
            "loss_map",
            _autograd_kernel(operators.loss_map, _keep_map, partial(_backward_of_map, operators)),
        ),
        (
            "block_double_backward",
            _autograd_kernel(operators.block_double_backward, _keep_nothing, _refuse, of_all=True),
        ),
    ):
        fragment.impl(name, kernel, "Autograd", with_keyset=True)


_fragments: list[torch.library.Library] = []  # registrations end when their library is collected


def _autograd_kernel(
    operator: Any,
    keep: Callable[..., None],
    backward: Callable[..., tuple[Any, ...]],
    of_all: bool = False,
) -> Callable[..., Any]:
    """A replacement for `torch.library.register_autograd`, for operators with many arguments.

    PyTorch's version looks up each argument's default in time quadratic in their number, which was
    half the overhead of a call (bench/overhead.py), and it does not work under torch.func.

    of_all: all arguments are tensors that may require grad; otherwise only the first two may.
    """

    def below(keyset: Any, *arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    class Differentiable(transforms.SingleLevelFunction):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            *arguments_, keyset = arguments
            output = below(keyset, *arguments_)
            keep(ctx, arguments_, output)
            return output

        @staticmethod
        def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
            if upstream[0] is not None and is_legacy_batchedtensor(upstream[0]):
                raise RuntimeError(NO_BATCHED_GRADIENTS)
            return (*backward(ctx, *upstream), None)

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
            raise RuntimeError(NO_FORWARD_MODE)

    class Transformed(Differentiable):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            with transforms.recording_below():
                return Differentiable.forward(ctx, *arguments)

    # PyTorch's annotations omit this method of the C++ base class.
    record = Differentiable.apply  # type: ignore[attr-defined]
    record_transformed = Transformed.apply  # type: ignore[attr-defined]

    def kernel(keyset: Any, first: Tensor, second: Tensor, *rest: Any) -> Any:
        wanted = torch.is_grad_enabled() and (
            first.requires_grad
            or second.requires_grad
            or (of_all and any(tensor.requires_grad for tensor in rest))
        )
        if wanted or forward_ad._current_level >= 0:  # in forward mode, jvp() raises
            if transforms.active():
                with transforms.single_level_allowed():
                    return record_transformed(first, second, *rest, keyset)
            return record(first, second, *rest, keyset)
        return below(keyset, first, second, *rest)

    return kernel


# ---- block_double_backward: returns its first argument, with a derivative that raises ------------
#
# Applied to the upstream gradient before the stored gradient is multiplied by it. Without it, a
# second derivative would be that of a multiplication by a constant: silently wrong. If the kernel
# has already included the upstream gradient, derivatives with respect to that would be wrong too.


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    pass


def _refuse(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    raise RuntimeError(NO_SECOND_DERIVATIVE)


# ---- image_losses --------------------------------------------------------------------------------


def _keep_losses(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    (
        input,
        target,
        weight,
        mask,
        data_ranges,
        factors,
        coefficients,
        mean_over,
        sums,
        _,
        _,
        *spec,
    ) = inputs
    _, *gradients = output
    ctx.save_for_backward(input, target, weight, mask, data_ranges, factors)
    ctx.gradients = gradients
    ctx.shared, ctx.sums, ctx.spec = (coefficients, mean_over), sums, spec
    ctx.constants = len(inputs) - 2  # the inputs without a gradient
    ctx.mark_non_differentiable(*gradients)
    ctx.set_materialize_grads(False)


def _backward_of_losses(
    operators: Operators, ctx: Any, upstream: Tensor | None, *_: Any
) -> tuple[Any, ...]:
    nothing = (None,) * ctx.constants
    if upstream is None:
        return (None, None, *nothing)
    input, target, weight, mask, data_ranges, factors = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    factor: Tensor | None = upstream
    shared, sums = ctx.shared, ctx.sums
    if sums == "terms":
        if factors is None:
            numbers = SharedFactors(*shared).divided(FlatSpec(*ctx.spec).grids(input.shape))
            factors = numbers_beside(upstream, numbers, upstream.dtype)
        factors, factor = factors * upstream.detach(), None
        shared, sums = ((), "nothing"), "images"
    # One backward pass consumes the stored gradient: it may return it as it is or scale it in
    # place. A further pass (retain_graph=True) recomputes it.
    gradients = ctx.__dict__.pop("gradients", None)
    if gradients is None or any(
        need and gradient.shape != input.shape
        for need, gradient in zip(needed, gradients, strict=True)
    ):
        images = input.detach(), target.detach()
        _, *gradients = call(
            operators.image_losses, *images, weight, mask, data_ranges, factors, *shared, sums,
            *needed, *ctx.spec,
        )  # fmt: skip
    results = _results(operators, gradients, factor, input, target, upstream, needed)
    return (*results, *nothing)


def _results(
    operators: Operators,
    gradients: Sequence[Tensor],
    factor: Tensor | None,
    input: Tensor,
    target: Tensor,
    upstream: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients times one factor per image or in all, rounded once to the dtype of the image.

    upstream: the gradient that backward received, even if `gradients` already include it.
    """
    second_derivative = torch.is_grad_enabled()  # create_graph=True
    # Under vmap an unbatched gradient cannot be scaled in place by a batched factor, and a batched
    # factor cannot be read.
    plain = not second_derivative and not transforms.active()
    if second_derivative:
        factor = input.new_ones(input.shape[0]) if factor is None else factor
        factor = factor.to(gradients[0].dtype)
        factor = operators.block_double_backward(factor, input, target, upstream)
    elif plain and factor is not None and _is_one(factor):
        factor = None
    results: list[Tensor | None] = []
    for gradient, image, need in zip(gradients, (input, target), needed, strict=True):
        if not need:
            results.append(None)
            continue
        if factor is not None:
            per_image = factor.view(-1, *(1,) * (gradient.dim() - 1))
            in_place = plain and type(gradient) is Tensor  # not a compiler's tensor subclass
            if in_place and gradient.is_cuda and operators.scale is not None:
                operators.scale(gradient, factor)
            else:
                gradient = gradient.mul_(per_image) if in_place else gradient * per_image
        results.append(gradient.to(image.dtype))
    return results


def _is_one(upstream: Tensor) -> bool:
    """Whether the upstream factor is known to be 1 everywhere, without synchronizing."""
    if type(upstream) is not Tensor or upstream.device.type != "cpu":  # or a compiler's subclass
        return False
    if upstream.dim() == 0:
        return upstream.item() == 1
    if upstream.numel() and upstream.stride(0) == 0:
        return bool(upstream[0] == 1)
    return bool((upstream == 1).all())


# ---- loss_map ------------------------------------------------------------------------------------


def _keep_map(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, target, mask, data_ranges, coefficients, *ctx.spec = inputs
    ctx.save_for_backward(input, target, mask, data_ranges, coefficients)


def _backward_of_map(operators: Operators, ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    input, target, mask, data_ranges, coefficients = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    _, *gradients = call(
        operators.image_losses,
        input.detach(),
        target.detach(),
        upstream.detach(),
        mask,
        data_ranges,
        coefficients.expand(input.shape[0], -1),
        (),
        "nothing",
        "images",
        *needed,
        *ctx.spec,
    )
    results = _results(operators, gradients, None, input, target, upstream, needed)
    return (*results, None, None, None, *(None,) * len(ctx.spec))
