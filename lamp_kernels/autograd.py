"""The derivatives of the operators.

`image_losses` computes the gradients in the pass that computes the losses, and backward only
multiplies them, in place where it can. The gradients live on the autograd node, as its own results
and not as tensors saved for backward, so hooks on saved tensors (torch.autograd.graph.save_on_cpu,
checkpoints) do not see them. Whoever calls the operator directly and differentiates its losses
leaves the gradients to backward. Where `sums` is "terms", the upstream factors differ from term to
term: then the forward computes values only, and backward calls the operator again with those
factors in `factors`. The backward of the map is `image_losses` with the upstream gradient as its
weight.
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
    "the kernels of lamp_kernels have no second derivative; backend='reference' has"
)

NO_BATCHED_GRADIENTS = (
    "is_grads_batched=True does not work through the kernels of lamp_kernels; torch.vmap over the "
    "function of torch.func.vjp does, and backend='reference'"
)

NO_FORWARD_MODE = (
    "the kernels of lamp_kernels have no forward-mode derivative; backend='reference' has"
)


def register(library: str, operators: Operators) -> None:
    """Give the operators in `library` their derivatives."""
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


_fragments: list[torch.library.Library] = []  # a registration ends with its library object


def _autograd_kernel(
    operator: Any,
    keep: Callable[..., None],
    backward: Callable[..., tuple[Any, ...]],
    of_all: bool = False,
) -> Callable[..., Any]:
    """What `torch.library.register_autograd` makes, for operators of many arguments.

    That looks at each argument's default in a time quadratic in their number: half of what a call
    cost beyond the kernel (bench/overhead.py). Nor does it work under torch.func.

    of_all: the arguments are tensors, any of which may require grad; else the first two may.
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

    # PyTorch's annotations leave out the method that its C++ class has.
    record = Differentiable.apply  # type: ignore[attr-defined]
    record_transformed = Transformed.apply  # type: ignore[attr-defined]

    def kernel(keyset: Any, first: Tensor, second: Tensor, *rest: Any) -> Any:
        wanted = torch.is_grad_enabled() and (
            first.requires_grad
            or second.requires_grad
            or (of_all and any(tensor.requires_grad for tensor in rest))
        )
        if wanted or forward_ad._current_level >= 0:  # in forward mode jvp() raises
            if transforms.active():
                with transforms.single_level_allowed():
                    return record_transformed(first, second, *rest, keyset)
            return record(first, second, *rest, keyset)
        return below(keyset, first, second, *rest)

    return kernel


# ---- block_double_backward: its factor, with a derivative that raises ----------------------------
#
# It stands in front of the multiplication of a stored gradient by an upstream factor. Without it, a
# second derivative would be that of a multiplication by a constant: silently wrong. So would be one
# with respect to what the upstream factor depends on, where the kernels took that factor in.


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    pass


def _refuse(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    raise RuntimeError(NO_SECOND_DERIVATIVE)


# ---- image_losses --------------------------------------------------------------------------------


def _keep_losses(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    input, target, weight, factors, coefficients, mean_over, sums, _, _, *spec = inputs
    _, *gradients = output
    ctx.save_for_backward(input, target, weight, factors)
    ctx.gradients = gradients
    ctx.shared, ctx.sums, ctx.spec = (coefficients, mean_over), sums, spec
    ctx.constants = len(inputs) - 2  # the inputs that have no gradient
    ctx.mark_non_differentiable(*gradients)
    ctx.set_materialize_grads(False)


def _backward_of_losses(
    operators: Operators, ctx: Any, upstream: Tensor | None, *_: Any
) -> tuple[Any, ...]:
    nothing = (None,) * ctx.constants
    if upstream is None:
        return (None, None, *nothing)
    input, target, weight, factors = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    factor: Tensor | None = upstream
    shared, sums = ctx.shared, ctx.sums
    if sums == "terms":
        if factors is None:
            numbers = SharedFactors(*shared).divided(FlatSpec(*ctx.spec).grids(input.shape))
            factors = numbers_beside(upstream, numbers, upstream.dtype)
        factors, factor = factors * upstream.detach(), None
        shared, sums = ((), "nothing"), "images"
    # The stored gradient belongs to one backward, which may hand it on as it is or scale it in
    # place; what comes after that (retain_graph=True) computes it anew.
    gradients = ctx.__dict__.pop("gradients", None)
    if gradients is None or any(
        need and gradient.shape != input.shape
        for need, gradient in zip(needed, gradients, strict=True)
    ):
        images = input.detach(), target.detach()
        _, *gradients = call(
            operators.image_losses, *images, weight, factors, *shared, sums, *needed, *ctx.spec
        )
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
    """The gradients times a factor for each image, or one, rounded once to the dtype of the image.

    upstream: what backward was called with, whether the gradients hold it already or not.
    """
    second_derivative = torch.is_grad_enabled()  # create_graph=True
    # A gradient that is not mapped cannot take one that is, nor can a mapped factor be looked at.
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
            by_image = factor.view(-1, 1, 1, 1)
            ours = plain and type(gradient) is Tensor  # and no compiler's
            if ours and gradient.is_cuda and operators.scale is not None:
                operators.scale(gradient, factor)
            else:
                gradient = gradient.mul_(by_image) if ours else gradient * by_image
        results.append(gradient.to(image.dtype))
    return results


def _is_one(upstream: Tensor) -> bool:
    """Whether the upstream factor is 1 everywhere, known without waiting for a device."""
    if type(upstream) is not Tensor or upstream.device.type != "cpu":  # or one of a compiler's
        return False
    if upstream.dim() == 0:
        return upstream.item() == 1
    if upstream.numel() and upstream.stride(0) == 0:
        return bool(upstream[0] == 1)
    return bool((upstream == 1).all())


# ---- loss_map ------------------------------------------------------------------------------------


def _keep_map(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, target, coefficients, *ctx.spec = inputs
    ctx.save_for_backward(input, target, coefficients)


def _backward_of_map(operators: Operators, ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    input, target, coefficients = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    _, *gradients = call(
        operators.image_losses,
        input.detach(),
        target.detach(),
        upstream.detach(),
        coefficients.expand(input.shape[0], -1),
        (),
        "nothing",
        "images",
        *needed,
        *ctx.spec,
    )
    results = _results(operators, gradients, None, input, target, upstream, needed)
    return (*results, None, *(None,) * len(ctx.spec))
