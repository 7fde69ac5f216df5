"""torch.func: vmap and its derivatives, against a Python loop over plain autograd."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vjp,
    vmap,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from lamp_kernels import (
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    backends,
    functional,
    ops,
)
from lamp_kernels.spec import REDUCTIONS, LossSpec, Term

pytestmark = pytest.mark.usefixtures("each_backend")

CELLS = [(level, reduction) for level, row in REDUCTIONS.items() for reduction in row]
LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "ssim": functional.amplified_ssim_loss,
    "mse": functional.amplified_mse_loss,
    "l1": functional.amplified_l1_loss,
    "all": functional.amplified_reconstruction_loss,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ssim": {"window_size": 5},
    "mse": {},
    "l1": {"data_range": 1.5},
    "all": {"window_size": 3, "ssim": 0.7, "mse": 1.3, "l1": 0.4},
}
MAPPED, IMAGES = 3, 2
every_cell = pytest.mark.parametrize(("level", "reduction"), CELLS)
every_loss = pytest.mark.parametrize("name", LOSSES)


def loss_of(name, **others):
    return lambda *tensors: LOSSES[name](*tensors, **{**OPTIONS[name], **others})


def numbers(loss):
    """Reduce the loss to one number, weighting its elements differently."""

    def total(*tensors):
        losses = loss(*tensors)
        return (losses * torch.linspace(0.5, 1.5, losses.numel()).view(losses.shape)).sum()

    return total


def gradients(loss):
    """The gradients with respect to both images, from plain autograd."""

    def computed(x, y, *weight):
        leaves = [image.detach().clone().requires_grad_() for image in (x, y)]
        return torch.autograd.grad(loss(*leaves, *weight), leaves)

    return computed


def looped(function, in_dims, *tensors):
    """What `vmap` should return."""
    every = [
        function(
            *(t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims, strict=True))
        )
        for i in range(MAPPED)
    ]
    return tree_map(lambda *each: torch.stack(each), *every)


def assert_vmap_matches_loop(loss, in_dims, *tensors):
    """In the losses and in the gradients of both images."""
    torch.testing.assert_close(vmap(loss, in_dims)(*tensors), looped(loss, in_dims, *tensors))
    found = vmap(grad(numbers(loss), (0, 1)), in_dims)(*tensors)
    torch.testing.assert_close(found, looped(gradients(numbers(loss)), in_dims, *tensors))


def images(*shape, dtype=torch.float64):
    return torch.rand(2, *shape).to(dtype)


def batches(dtype=torch.float64):
    return images(MAPPED, IMAGES, 2, 9, 8, dtype=dtype)


@every_loss
@every_cell
def test_losses_and_gradients_of_each_batch(name, level, reduction):
    loss = loss_of(name, amplify_over=level, reduction=reduction)
    assert_vmap_matches_loop(loss, (0, 0), *batches())


@pytest.mark.beside_reference
@every_loss
@every_cell
def test_gradients_match_the_reference(name, level, reduction):
    x, y = batches(torch.float32)
    weight = torch.rand(MAPPED, IMAGES, 1, 9, 8)
    found, expected = (
        vmap(
            grad(numbers(loss_of(name, amplify_over=level, reduction=reduction, backend=backend)))
        )(x, y, weight)
        for backend in (None, "reference")
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (1, 0), (4, 2)], ids=str)
@pytest.mark.parametrize("count", [1, IMAGES])
@every_cell
def test_mapping_one_input_or_different_dimensions(level, reduction, count, in_dims):
    loss = loss_of("all", amplify_over=level, reduction=reduction)
    pair = images(MAPPED, count, 2, 9, 8)
    tensors = [
        image[0] if dim is None else image.movedim(0, dim)
        for image, dim in zip(pair, in_dims, strict=True)
    ]
    assert_vmap_matches_loop(loss, in_dims, *tensors)


WEIGHTS = {
    "map": (MAPPED, IMAGES, 1, 9, 8),
    "shared by all images": (MAPPED, 1, 1, 9, 8),
    "per image": (MAPPED, IMAGES),
    "per column": (MAPPED, 1, 2, 1, 8),
}


@pytest.mark.parametrize(
    "in_dims", [(0, 0, 0), (0, 0, None), (None, None, 0), (0, None, 0)], ids=str
)
@pytest.mark.parametrize("shape", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize(
    ("level", "reduction"),
    [("element", "mean"), ("element", "sum"), ("element", "none"), ("image", "mean")],
)
def test_weights(level, reduction, shape, in_dims):
    loss = loss_of("all", amplify_over=level, reduction=reduction)
    tensors = [
        tensor if dim == 0 else tensor[0]
        for tensor, dim in zip((*batches(), torch.rand(shape)), in_dims, strict=True)
    ]
    assert_vmap_matches_loop(loss, in_dims, *tensors)


def test_masks_including_one_that_is_all_zero():
    x, y = batches()
    mask = torch.rand(MAPPED, IMAGES, 1, 9, 8) > 0.5
    mask[0] = False
    loss = loss_of("ssim", padding="valid")
    found = vmap(grad_and_value(loss))(x, y, mask)
    expected = looped(gradients(loss), (0, 0, 0), x, y, mask)[0]
    torch.testing.assert_close(found[0], expected)
    assert not found[0][0].any()
    assert found[1][0] == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_dtypes(dtype, reduction):
    loss = loss_of("all", reduction=reduction)
    x, y = batches(dtype)
    assert vmap(loss)(x, y).dtype == torch.float32
    assert vmap(grad(numbers(loss)))(x, y).dtype == dtype
    assert_vmap_matches_loop(loss, (0, 0), x, y)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_per_sample_gradients_of_the_parameters(layout):
    """The main use of vmap(grad(...)): the network sees a batch of one."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 3, 3, padding=1)
    )
    loss_function = AmplifiedReconstructionLoss(window_size=5)
    x, y = (image.contiguous(memory_format=layout) for image in images(5, 3, 12, 11).float())
    parameters = {name: each.detach() for name, each in network.named_parameters()}

    def loss(parameters, x, y):
        return loss_function(functional_call(network, parameters, (x[None],)), y[None])

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    for i in range(5):
        network.zero_grad()
        loss_function(network(x[i, None]), y[i, None]).backward()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(found[name][i], parameter.grad, rtol=1e-4, atol=1e-6)


@every_cell
def test_vmap_of_vmap(level, reduction):
    loss = loss_of("all", amplify_over=level, reduction=reduction)
    x, y = images(MAPPED, 2, IMAGES, 1, 6, 7)
    flat = [image.flatten(0, 1) for image in (x, y)]

    def expected(function):
        return tree_map(lambda each: each.unflatten(0, (MAPPED, 2)), vmap(function)(*flat))

    torch.testing.assert_close(vmap(vmap(loss))(x, y), expected(loss))
    gradient_of_one = grad(numbers(loss), (0, 1))
    torch.testing.assert_close(vmap(vmap(gradient_of_one))(x, y), expected(gradient_of_one))

    def of_all(x, y):
        return vmap(numbers(loss))(x, y).sum()

    torch.testing.assert_close(vmap(grad(of_all, (0, 1)))(x, y), expected(gradient_of_one))
    # The outer vmap maps the targets, the inner one the inputs.
    found = vmap(vmap(loss, (0, None)), (None, 0))(x[0], y[:, 0])
    torch.testing.assert_close(found[1, 0], loss(x[0, 0], y[1, 0]))
    torch.testing.assert_close(found[0, 1], loss(x[0, 1], y[0, 0]))


@every_loss
@every_cell
def test_derivatives_without_vmap(name, level, reduction):
    loss = loss_of(name, amplify_over=level, reduction=reduction)
    x, y = images(IMAGES, 2, 6, 7)
    (expected, _) = gradients(numbers(loss))(x, y)
    torch.testing.assert_close(grad(numbers(loss))(x, y), expected)
    found, value = grad_and_value(numbers(loss))(x, y)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(value, numbers(loss)(x, y))
    losses, pull = vjp(loss, x, y)  # type: ignore[misc] # a third result only if has_aux
    upstream = torch.rand_like(losses)
    expected = gradients(lambda x, y: (loss(x, y) * upstream).sum())(x, y)
    torch.testing.assert_close(pull(upstream), expected)  # twice: each call recomputes the gradient
    torch.testing.assert_close(pull(2.0 * upstream), tree_map(lambda each: 2.0 * each, expected))


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("reduction", ["image", "none"])
def test_jacobians(reduction, recorded):
    loss = loss_of("ssim", reduction=reduction)
    x, y = images(IMAGES, 1, 5, 4)
    expected = torch.stack(
        [
            torch.func.grad(lambda x, place=place: loss(x, y).flatten()[place])(x)
            for place in range(loss(x, y).numel())
        ]
    )
    with torch.set_grad_enabled(recorded):
        found = jacrev(loss)(x, y)
        torch.testing.assert_close(found.reshape(expected.shape), expected)
        torch.testing.assert_close(jacrev(loss, chunk_size=1)(x, y), found)


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None)], ids=str)
@every_cell
def test_the_derivative_of_a_vmap(level, reduction, in_dims):
    """By torch.func and by autograd; unmapped inputs get the sum over the mapped dimension."""
    loss = numbers(loss_of("all", amplify_over=level, reduction=reduction))
    x, y = batches()
    y = y if in_dims[1] == 0 else y[0]

    def of_all(x, y):
        return vmap(loss, in_dims)(x, y).sum()

    def by_loop(x, y):
        return looped(loss, in_dims, x, y).sum()

    expected = gradients(by_loop)(x, y)
    torch.testing.assert_close(grad(of_all, (0, 1))(x, y), expected)
    torch.testing.assert_close(gradients(of_all)(x, y), expected)
    leaf = x.clone().requires_grad_()
    total = of_all(leaf, y)
    total.backward(retain_graph=True)
    total.backward()
    torch.testing.assert_close(leaf.grad, 2.0 * expected[0])


def test_only_requested_derivatives_are_computed():
    loss = loss_of("all")
    x, y = images(IMAGES, 1, 6, 7)
    (expected, _) = gradients(loss)(x, y)

    def value_beside(x):  # a value that is also differentiated with respect to y
        return grad_and_value(lambda y: loss(x, y))(y)[1]

    torch.testing.assert_close(grad(value_beside)(x), expected)

    def constant(x):
        with torch.no_grad():
            return loss(x, y)

    assert not grad(lambda x: constant(x) + 0.0 * x.sum())(x).any()

    def constant_gradient(x):
        return (grad(loss)(x.detach(), y) * x).sum()

    torch.testing.assert_close(grad(constant_gradient)(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(grad(loss)(x, y), expected)


MULTISCALE = [("element", "mean"), ("image", "image"), ("batch", "mean")]


@pytest.mark.parametrize(("level", "reduction"), MULTISCALE)
def test_ms_ssim(level, reduction):
    def loss(*tensors):
        return functional.amplified_ms_ssim_loss(
            *tensors,
            window_size=3,
            scale_weights=(0.4, 0.6),
            amplify_over=level,
            reduction=reduction,
        )

    x, y = batches()
    weight = torch.rand(MAPPED, IMAGES, 1, 9, 8)
    for tensors in ((x, y), (x, y, weight)):
        assert_vmap_matches_loop(loss, (0,) * len(tensors), *tensors)


@pytest.mark.parametrize("pooling", ["max", "mean", "topk"])
@pytest.mark.parametrize("metric", ["ssim", "mse"])
def test_maps_and_scores(metric, pooling):
    def score(x, y):
        errors = functional.anomaly_map(x, y, metric=metric, window_size=5, smooth_sigma=0.7)
        return functional.anomaly_score(errors, pooling=pooling)

    x, y = batches()
    torch.testing.assert_close(vmap(score)(x, y), looped(score, (0, 0), x, y))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_in_a_compiled_graph(reduction):
    torch._dynamo.reset()
    loss = numbers(loss_of("all", reduction=reduction))
    x, y = batches(torch.float32)
    weight = torch.rand(MAPPED, IMAGES, 1, 9, 8)
    function = vmap(grad(loss), in_dims=(0, None, 0))
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y[0], weight), function(x, y[0], weight))


class Calls(TorchDispatchMode):
    """Records how many images each kernel call receives."""

    def __init__(self):
        super().__init__()
        self.images = []

    def __torch_dispatch__(self, operator, types, arguments=(), named=None):
        if operator._schema.name.partition("::")[2] in ("image_losses", "loss_map"):
            self.images.append(arguments[0].shape[0])
        return operator(*arguments, **(named or {}))


@pytest.mark.kernels_only
def test_one_kernel_call_for_all_mapped_images():
    loss = loss_of("all")
    with Calls() as calls:
        vmap(grad(loss))(*batches())
    assert calls.images == [MAPPED * IMAGES]


UNSUPPORTED = {
    "gradient of a gradient": lambda loss, x, y: grad(lambda x: grad(loss)(x, y).square().sum())(x),
    "by target, of gradient by input": lambda loss, x, y: grad(
        lambda y: grad(loss)(x, y).square().sum()
    )(y),
    "hessian": lambda loss, x, y: hessian(loss)(x, y),
    "jacrev of jacrev": lambda loss, x, y: jacrev(jacrev(loss))(x, y),
    "gradient of a mapped gradient": lambda loss, x, y: grad(
        lambda x: vmap(grad(loss))(x[None], y[None]).square().sum()
    )(x),
    "mapped gradient of a gradient": lambda loss, x, y: vmap(
        grad(lambda x, y: grad(loss)(x, y).square().sum())
    )(x[None], y[None]),
    "by the upstream factor": lambda loss, x, y: grad(
        lambda factor: grad(lambda x: loss(x, y) * factor)(x).square().sum()
    )(torch.ones(())),
    "by autograd": lambda loss, x, y: (
        vmap(grad(loss))(x.clone().requires_grad_()[None], y[None]).square().sum().backward()
    ),
    "forward mode": lambda loss, x, y: jvp(lambda x: loss(x, y), (x,), (x,)),
    "jacfwd": lambda loss, x, y: jacfwd(loss)(x, y),
    "mapped forward mode": lambda loss, x, y: vmap(
        lambda x: jvp(lambda x: loss(x, y), (x,), (x,))[1]
    )(x[None]),
    "forward mode of a vmap": lambda loss, x, y: jvp(
        lambda x: vmap(loss)(x, y[None]), (x[None],), (x[None],)
    ),
    "linearize": lambda loss, x, y: linearize(lambda x: loss(x, y), x),
}


@pytest.mark.kernels_only
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # linearize's own
@pytest.mark.parametrize("level", ["element", "image"])
@pytest.mark.parametrize("derivative", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported_derivatives_raise_and_suggest_the_reference(derivative, level):
    """Second derivatives and forward mode raise instead of returning wrong numbers."""
    loss = loss_of("all", amplify_over=level)
    with pytest.raises(RuntimeError, match=r"use backend='reference'"):
        derivative(loss, *images(IMAGES, 1, 5, 6))


@pytest.mark.reference_only
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # linearize's own
@pytest.mark.parametrize("derivative", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_the_reference_supports_these_derivatives(derivative):
    derivative(loss_of("mse"), *images(IMAGES, 1, 5, 6))


def test_autograd_differentiates_through_a_module_inside_vmap():
    """The function passed to vmap closes over a leaf of autograd."""
    x, y = batches(torch.float32)
    scale = torch.ones((), requires_grad=True)
    loss = AmplifiedSSIMLoss(window_size=5)
    vmap(lambda x, y: loss(scale * x, y))(x, y).sum().backward()
    other = torch.ones((), requires_grad=True)
    looped(lambda x, y: loss(other * x, y), (0, 0), x, y).sum().backward()
    torch.testing.assert_close(scale.grad, other.grad)


@pytest.mark.cpu_only("calls the native operator directly")
@pytest.mark.kernels_only
@pytest.mark.skipif("native" not in backends.available(), reason="no native operators")
@pytest.mark.parametrize("sums", ["terms", "images"])
def test_factors_of_the_operator(sums):
    """Factors for each mapped batch, which the library itself uses only with a weight."""
    terms = (Term("ssim"), Term("mse"))
    spec = ops.FlatSpec.of(LossSpec(terms, window_size=5, padding="zeros"))

    def losses(x, y, factors):
        operator = torch.ops.lamp_kernels.image_losses
        return operator(x, y, None, None, None, factors, (), "nothing", sums, False, False, *spec)[
            0
        ]

    tensors = (*batches(torch.float32), torch.rand(MAPPED, IMAGES, 2))
    torch.testing.assert_close(vmap(losses)(*tensors), looped(losses, (0, 0, 0), *tensors))
    one = tensors[2][0]
    found = vmap(losses, (0, 0, None))(tensors[0], tensors[1], one)
    torch.testing.assert_close(found, looped(losses, (0, 0, None), *tensors[:2], one))
    mapped = vmap(
        lambda x, y, c: torch.ops.lamp_kernels.loss_map(x, y, None, None, c, *spec),
        in_dims=(0, 0, 0),
    )
    with pytest.raises(RuntimeError, match="coefficients of loss_map must not be batched by vmap"):
        mapped(tensors[0], tensors[1], tensors[2][:, 0])
