"""The operators as PyTorch sees them: fake kernels for the compiler, derivatives for autograd.

The kernels (C++, Triton) compute; what is here is about tensors only. Two operators of one schema
make a backend:

    image_losses(input, target, weight, factors, coefficients, mean_over, <options>, sums,
                 input_gradient, target_gradient)
        -> losses, gradient of input, gradient of target
    loss_map(input, target, coefficients, <options>) -> map

`image_losses` computes the gradients in the pass that computes the losses, and backward only
multiplies them, in place where it can: whoever calls the operator itself and differentiates its
losses leaves the gradients to backward. They are kept on the autograd node, as results of its own
and not as tensors saved for backward, so hooks on saved tensors (torch.autograd.graph.save_on_cpu,
checkpoints) do not see them. Where `sums` is "terms" the upstream factors differ from term to term;
then the forward computes values, and backward calls the operator again with those factors in
`factors`. The backward of the map is `image_losses` with the upstream gradient as its weight.

`factors` are (N, T), or None where all images share them: then `coefficients` and `mean_over` are
what `levels.SharedFactors` says, and `sums` may be "batch".

Autocast needs no rule: the kernels take mixed floating dtypes as they are, compute in float32 or
float64, and return that. What torch.func's transforms need is in `transforms`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad

from lamp_kernels import transforms
from lamp_kernels.levels import SharedFactors
from lamp_kernels.tensors import compute_dtype, numbers_beside

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


class Options(NamedTuple):
    """The options of an operator, in the order of its schema."""

    ssim: bool
    mse: bool
    l1: bool
    data_range: float
    window_size: int
    sigma: float
    k1: float
    k2: float
    padding: str
    dissimilarity: float
    amplify: bool
    eps: float

    @property
    def terms(self) -> int:
        """How many."""
        return self.ssim + self.mse + self.l1

    def grids(self, shape: torch.Size) -> list[torch.Size]:
        """The shapes of the terms' losses, from that of the images (N, C, H, W)."""
        whole = [shape] * (self.mse + self.l1)
        if not self.ssim:
            return whole
        lost = self.window_size - 1 if self.padding == "valid" else 0
        return [torch.Size((*shape[:2], shape[2] - lost, shape[3] - lost)), *whole]


# Of the native operators csrc/operators.h has the schemas, the same ones.
_OPTIONS_SCHEMA = (
    "bool ssim, bool mse, bool l1, float data_range, int window_size, float sigma, float k1, "
    "float k2, str padding, float dissimilarity, bool amplify, float eps"
)
IMAGE_LOSSES_SCHEMA = (
    "(Tensor input, Tensor target, Tensor? weight, Tensor? factors, float[] coefficients, "
    f"str mean_over, {_OPTIONS_SCHEMA}, str sums, bool input_gradient, bool target_gradient) "
    "-> (Tensor, Tensor, Tensor)"
)
LOSS_MAP_SCHEMA = f"(Tensor input, Tensor target, Tensor coefficients, {_OPTIONS_SCHEMA}) -> Tensor"
ONCE_SCHEMA = "(Tensor factor, Tensor input, Tensor target, Tensor upstream) -> Tensor"
SCALE_SCHEMA = "(Tensor(a!) gradient, Tensor factor) -> ()"


class Operators(NamedTuple):
    """The operators of a backend.

    scale: multiplies a CUDA gradient (N, C, H, W) by factors (N,), or one (), in place, without a
    pass over it where they are 1; None where there is none.
    """

    image_losses: Any
    loss_map: Any
    once: Any  # see `register_once`
    scale: Any


def call(operator: Any, *arguments: Any) -> Any:
    """What the operator returns; where its memory cannot be had, the allocator's own error.

    The stable ABI brings no exception from below: out of memory arrives as a RuntimeError that
    names a line of a header. So the outputs are asked for once more, from here.
    """
    try:
        return operator(*arguments)
    except RuntimeError as error:
        if "empty" not in str(error):
            raise
        fake = _fake_map if len(arguments) == 3 + len(Options._fields) else _fake_losses
        fake(*arguments)
        raise


def register(library: str, image_losses: str, loss_map: str, scale: str | None = None) -> Operators:
    """Give the operators of these names in `library` their fake kernels and derivatives."""
    namespace = getattr(torch.ops, library)
    operators = Operators(
        getattr(namespace, image_losses).default,
        getattr(namespace, loss_map).default,
        namespace.once.default,
        getattr(namespace, scale).default if scale else None,
    )
    if scale:
        torch.library.register_fake(f"{library}::{scale}", _fake_scale)
    torch.library.register_fake(f"{library}::{image_losses}", _fake_losses)
    torch.library.register_fake(f"{library}::{loss_map}", _fake_map)
    losses_kernel = _autograd_kernel(
        operators.image_losses, _keep_losses, partial(_backward_of_losses, operators)
    )
    map_kernel = _autograd_kernel(
        operators.loss_map, _keep_map, partial(_backward_of_map, operators)
    )
    _implement(library, **{image_losses: losses_kernel, loss_map: map_kernel})
    transforms.register(library, image_losses, loss_map)
    return operators


def _implement(library: str, **kernels: Callable[..., Any]) -> None:
    fragment = torch.library.Library(library, "FRAGMENT")
    _fragments.append(fragment)
    for name, kernel in kernels.items():
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


def register_once(library: str) -> None:
    """Give `once(factor, input, target, upstream)`, its factor, a derivative that raises.

    It stands before the multiplication of a gradient by what the kernels did not take into it.
    Without it a second derivative would be that of a multiplication by a constant: silently wrong,
    and so would be one by what the upstream factor depends on, where the kernels took that in.
    """
    torch.library.register_fake(f"{library}::once", _fake_once)
    kernel = _autograd_kernel(
        getattr(torch.ops, library).once.default, _keep_nothing, _refuse, of_all=True
    )
    _implement(library, once=kernel)


# ---- Fake kernels: shapes, dtypes and memory formats --------------------------------------------


def _check_one_device(*tensors: Tensor | None) -> None:
    """A tensor of the meta device beside one that has data: the dispatcher asks the fake kernel."""
    devices = {tensor.device for tensor in tensors if tensor is not None}
    if len(devices) > 1:
        raise RuntimeError(f"expected tensors of one device, got {sorted(map(str, devices))}")


def is_channels_last(image: Tensor) -> bool:
    """Whether an image (N, C, H, W) is dense in that order and in no other."""
    return not image.is_contiguous() and image.is_contiguous(memory_format=torch.channels_last)


def empty_in_format_of(like: Tensor, sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialised, on the device and in the memory format of `like`."""
    return torch.empty(
        sizes,
        dtype=dtype,
        device=like.device,
        memory_format=torch.channels_last if is_channels_last(like) else torch.contiguous_format,
    )


def _fake_losses(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    factors: Tensor | None,
    coefficients: list[float],
    mean_over: str,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    _check_one_device(input, target, weight, factors)
    sums, *wanted = options[len(Options._fields) :]
    terms = Options(*options[: len(Options._fields)]).terms
    dtype = compute_dtype(input.dtype, target.dtype)
    sizes = {"terms": (input.shape[0], terms), "images": input.shape[:1], "batch": ()}[sums]
    losses = input.new_empty(sizes, dtype=dtype)
    by_input, by_target = (
        empty_in_format_of(image, tuple(image.shape), dtype)
        if gradient
        else image.new_empty(0, dtype=dtype)
        for image, gradient in zip((input, target), wanted, strict=True)
    )
    return losses, by_input, by_target


def _fake_map(input: Tensor, target: Tensor, coefficients: Tensor, *options: Any) -> Tensor:
    _check_one_device(input, target, coefficients)
    sizes = Options(*options).grids(input.shape)[0]
    return empty_in_format_of(input, sizes, compute_dtype(input.dtype, target.dtype))


def _fake_scale(gradient: Tensor, factor: Tensor) -> None:
    _check_one_device(gradient, factor)


def _fake_once(factor: Tensor, input: Tensor, target: Tensor, upstream: Tensor) -> Tensor:
    return torch.empty_like(factor)


# ---- Derivatives --------------------------------------------------------------------------------


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    pass


def _refuse(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    raise RuntimeError(NO_SECOND_DERIVATIVE)


def _keep_losses(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    input, target, weight, factors, coefficients, mean_over, *options = inputs
    _, *gradients = output
    ctx.save_for_backward(input, target, weight, factors)
    ctx.gradients = gradients
    ctx.shared = (coefficients, mean_over)
    *ctx.options, ctx.sums, _, _ = options
    ctx.mark_non_differentiable(*gradients)
    ctx.set_materialize_grads(False)


def _backward_of_losses(
    operators: Operators, ctx: Any, upstream: Tensor | None, *_: Any
) -> tuple[Any, ...]:
    nothing = (None,) * (len(Options._fields) + 7)
    if upstream is None:
        return (None, None, *nothing)
    input, target, weight, factors = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    factor: Tensor | None = upstream
    shared, sums = ctx.shared, ctx.sums
    if sums == "terms":
        if factors is None:
            factors = _shared_factors(upstream, input.shape, Options(*ctx.options), *shared)
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
            operators.image_losses, *images, weight, factors, *shared, *ctx.options, sums, *needed
        )
    results = _results(operators, gradients, factor, input, target, upstream, needed)
    return (*results, *nothing)


def _shared_factors(
    like: Tensor, shape: torch.Size, options: Options, coefficients: list[float], mean_over: Any
) -> Tensor:
    """As a tensor (T,)."""
    shared = SharedFactors(tuple(coefficients), mean_over)
    numbers = [shared.of(term, grid) for term, grid in enumerate(options.grids(shape))]
    return numbers_beside(like, numbers, like.dtype)


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
        factor = operators.once(factor, input, target, upstream)
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


def _keep_map(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, target, coefficients, *ctx.options = inputs
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
        *ctx.options,
        "images",
        *needed,
    )
    results = _results(operators, gradients, None, input, target, upstream, needed)
    return (*results, None, *(None,) * len(Options._fields))
