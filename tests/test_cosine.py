"""The cosine loss: against PyTorch's cosine similarity, and where that loses all digits."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from layouts import LAYOUTS

from lamp_kernels import AmplifiedCosineLoss, backends, functional
from lamp_kernels.spec import REDUCTIONS, LossSpec, Term

pytestmark = pytest.mark.usefixtures("each_backend")

NAN = math.nan
SHAPES = [(5, 7), (256, 40), (3, 64, 11), (2, 70, 9, 13), (1, 300, 16, 16), (2, 5, 3, 4, 6)]


@pytest.fixture(autouse=True)
def only_backends_with_cosine(each_backend):
    spec = LossSpec(terms=(Term("cosine"),))
    reason = backends.BACKENDS[each_backend].unsupported_reason(spec, torch.empty(0))
    if reason is not None:
        pytest.skip(f"{each_backend}: {reason}")


def textbook(x, y):
    """(1 - cos)/2 in float64, for vectors that are not short."""
    cosine = torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=1)
    return 0.5 - 0.5 * cosine.unsqueeze(1)


def log(loss, eps=1e-2):
    """A(L), from its definition."""
    below = loss.clamp(max=1.0 - eps)
    return -torch.log1p(-below) + (loss - below) / eps


def features(*shape, apart=1.0, dtype=torch.float64):
    x = torch.randn(shape, dtype=dtype)
    return x.requires_grad_(), (x + apart * torch.randn_like(x)).detach().requires_grad_()


def errors(found, expected):
    """Relative errors in the 2-norm."""
    pairs = zip(found, expected, strict=True)
    return [((a.double() - b).norm() / b.norm()).item() for a, b in pairs]


def with_gradients(loss, images):
    return (loss.detach().view(-1), *torch.autograd.grad(loss.sum(), images))


# ---- Values and gradients ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_pytorchs_cosine_similarity(shape):
    x, y = features(*shape)
    weight = torch.rand(shape[0], 1, *shape[2:], dtype=torch.float64)
    expected_map = weight * log(textbook(x, y))
    expected = expected_map.sum() / weight.sum()
    loss = AmplifiedCosineLoss()(x, y, weight)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    losses = (loss, expected)
    gradients = [torch.autograd.grad(each, (x, y), retain_graph=True) for each in losses]
    assert max(errors(*gradients)) < 1e-12

    found_map = AmplifiedCosineLoss(reduction="none")(x, y, weight)
    assert found_map.shape == weight.shape
    torch.testing.assert_close(found_map, expected_map)
    upstream = torch.rand_like(found_map)
    gradients = [
        torch.autograd.grad((upstream * each).sum(), (x, y)) for each in (found_map, expected_map)
    ]
    assert max(errors(*gradients)) < 1e-12


@pytest.mark.parametrize("wanted", ["input", "target", "both"])
def test_gradcheck(wanted):
    x, y = features(2, 3, 2, 4)
    x.requires_grad_(wanted != "target"), y.requires_grad_(wanted != "input")
    assert torch.autograd.gradcheck(AmplifiedCosineLoss(), (x, y))
    # Norms on both sides of cosine_epsilon.
    assert torch.autograd.gradcheck(AmplifiedCosineLoss(cosine_epsilon=2.0), (x, y))


@pytest.mark.reference_only
def test_gradgradcheck():
    x, y = features(2, 3, 2)
    assert torch.autograd.gradgradcheck(AmplifiedCosineLoss(), (x, y))


@pytest.mark.parametrize("apart", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nearly_equal_features_lose_no_digits(shape, apart):
    """Float32 against float64, in which the textbook has twelve digits less than the numbers."""
    x = torch.randn(shape)
    y = x * (1.0 + apart * torch.randn_like(x))
    images = x.requires_grad_(), y.requires_grad_()
    exact = [image.detach().double().requires_grad_() for image in images]
    found = with_gradients(AmplifiedCosineLoss()(*images), images)
    expected = with_gradients(log(exact_dissimilarity(*exact)).mean(), exact)
    assert max(errors(found, expected)) < 1e-5


def exact_dissimilarity(x, y):
    """|a - b|^2/4 from unit vectors: in float64 it has ten digits where they are 1e-5 apart."""
    a, b = (v / v.square().sum(1, keepdim=True).sqrt() for v in (x, y))
    return (a - b).square().sum(1, keepdim=True) / 4.0


@pytest.mark.parametrize("factor", [1e-3, 0.8, 1.7, 1e6])
def test_lengths_do_not_count(factor):
    x, y = features(2, 40, 5, 6, dtype=torch.float32)
    longer = (factor * x.detach()).requires_grad_()
    expected = with_gradients(AmplifiedCosineLoss()(x, y), (x, y))
    found = with_gradients(AmplifiedCosineLoss()(longer, y), (longer, y))
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(factor * found[1], expected[1], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-7)


def test_equal_features_have_no_loss_and_opposite_ones_the_greatest():
    x, _ = features(4, 33, 6, 7, dtype=torch.float32)
    same, half, opposite = x.detach().clone(), 0.5 * x.detach(), -3.0 * x.detach()
    plain = AmplifiedCosineLoss(amplification="none", reduction="none")
    assert not plain(x, same).any()
    assert not torch.autograd.grad(plain(x, same).sum(), x)[0].any()
    assert plain(x, half).min() >= 0.0
    assert plain(x, half).max() < 1e-12
    torch.testing.assert_close(plain(x, opposite), torch.ones(4, 1, 6, 7))
    steep = AmplifiedCosineLoss(eps=0.1)(x, opposite)
    assert steep.item() == pytest.approx(math.log(10) + 1.0, rel=1e-5)


def test_zero_and_short_vectors():
    """Zero vectors are equal; a norm below cosine_epsilon counts as cosine_epsilon."""
    plain = AmplifiedCosineLoss(amplification="none", reduction="none")
    unit = torch.tensor([[0.6, 0.8]])
    zero = torch.zeros(1, 2)
    for x, y, loss in ((zero, zero, 0.0), (zero, unit, 0.25), (unit, zero, 0.25)):
        images = x.clone().requires_grad_(), y.clone().requires_grad_()
        found, *gradients = with_gradients(plain(*images), images)
        assert found.item() == pytest.approx(loss)
        assert all(gradient.isfinite().all() for gradient in gradients)
    x = unit.clone().requires_grad_()
    short = AmplifiedCosineLoss(amplification="none", cosine_epsilon=2.0)(x, zero)
    assert short.item() == pytest.approx(0.25 / 4.0)  # |x/2|^2/4
    torch.testing.assert_close(torch.autograd.grad(short, x)[0], unit / 8.0)
    # At zero the slope is (a - b)/(2 cosine_epsilon).
    x = zero.clone().requires_grad_()
    loss = AmplifiedCosineLoss(amplification="none", cosine_epsilon=1e-4)(x, unit)
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], -unit / 2e-4)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("value", [NAN, math.inf])
def test_nan_reaches_its_position_and_no_other(layout, value):
    x, y = (LAYOUTS[layout](v.detach()) for v in features(2, 20, 6, 7))
    x[1, 3, 2, 5] = value
    x.requires_grad_()
    losses = AmplifiedCosineLoss(reduction="none")(x, y)
    expected = torch.zeros(2, 1, 6, 7, dtype=torch.bool)
    expected[1, 0, 2, 5] = True
    assert torch.equal(losses.isnan(), expected)
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    assert torch.equal(gradient.isnan(), expected.expand_as(x))
    assert AmplifiedCosineLoss()(x, y).isnan()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_layouts_and_dtypes(layout, dtype):
    """Half types are computed in float32, from the same numbers."""
    x, y = (v.detach().to(dtype) for v in features(2, 24, 10, 9))
    weight = torch.rand(2, 1, 10, 9)
    results = []
    for change in (LAYOUTS[layout], lambda image: image.double()):
        images = [change(v).detach().requires_grad_() for v in (x, y)]
        results.append(with_gradients(AmplifiedCosineLoss()(*images, change(weight)), images))
    assert results[0][0].dtype == (dtype if dtype == torch.float64 else torch.float32)
    assert max(errors(results[0][:1], results[1][:1])) < 1e-6
    limit = {torch.float16: 1e-3, torch.bfloat16: 4e-3}.get(dtype, 1e-6)
    assert max(errors(results[0][1:], results[1][1:])) < limit


def test_images_of_different_layouts():
    x, y = features(2, 24, 10, 9)
    expected = with_gradients(AmplifiedCosineLoss()(x, y), (x, y))
    last = LAYOUTS["channels_last"](y.detach()).requires_grad_()
    found = with_gradients(AmplifiedCosineLoss()(x, last), (x, last))
    assert max(errors(found, expected)) < 1e-12


# ---- Options -----------------------------------------------------------------------------------


def test_levels_and_reductions():
    x, y = features(3, 8, 5, 4)
    weight = torch.rand(3, 1, 5, 4, dtype=torch.float64)
    weight[1] = 0.0  # an image that does not count
    loss = textbook(x, y)
    means = (weight * loss).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-300)
    expected: dict[Any, torch.Tensor] = {
        ("element", "sum"): (weight * log(loss)).sum(),
        ("image", "image"): log(means),
        ("image", "sum"): log(means).sum(),
        ("image", "mean"): log(means).sum() / 2,
        ("batch", "mean"): log((weight * loss).sum() / weight.sum()),
    }
    for (level, reduction), value in expected.items():
        module = AmplifiedCosineLoss(amplify_over=level, reduction=reduction)
        torch.testing.assert_close(module(x, y, weight), value)
        found = torch.autograd.grad(module(x, y, weight).sum(), (x, y))
        wanted = torch.autograd.grad(value.sum(), (x, y), retain_graph=True)
        assert max(errors(found, wanted)) < 1e-11, (level, reduction)
    power = AmplifiedCosineLoss(amplification="power", gamma=3.0, delta=0.2)(x, y)
    torch.testing.assert_close(power, ((loss + 0.2) ** 3 - 0.2**3).mean())


@pytest.mark.parametrize("shape", [(3, 1, 6, 5), (1, 1, 6, 5), (3, 1, 1, 1), (1, 1, 1, 5), (3,)])
def test_weights_broadcast_over_positions(shape):
    x, y = features(3, 8, 6, 5)
    weight = torch.rand(shape, dtype=torch.float64)
    whole = weight.view(-1, 1, 1, 1) if weight.dim() == 1 else weight
    whole = whole.expand(3, 1, 6, 5).contiguous()
    found = with_gradients(AmplifiedCosineLoss()(x, y, weight), (x, y))
    expected = with_gradients(AmplifiedCosineLoss()(x, y, whole), (x, y))
    assert max(errors(found, expected)) < 1e-12


def test_a_mask_selects_features_away_and_weighs_the_rest():
    x, y = (v.detach().float() for v in features(2, 16, 8, 9))
    mask = torch.rand(2, 1, 8, 9)
    mask[..., :3] = 0.0
    expected_leaf = x.clone().requires_grad_()
    expected = AmplifiedCosineLoss()(expected_leaf, y, mask)
    hidden = (mask == 0).expand_as(x)
    leaf = x.masked_fill(hidden, NAN).requires_grad_()
    found = AmplifiedCosineLoss()(leaf, y.masked_fill(hidden, math.inf), mask=mask)
    torch.testing.assert_close(found, expected)
    found.backward(), expected.backward()
    torch.testing.assert_close(leaf.grad, expected_leaf.grad)
    assert not leaf.grad[hidden].any()
    weight = torch.rand(2, 1, 8, 9)
    torch.testing.assert_close(
        AmplifiedCosineLoss()(x, y, weight, mask), AmplifiedCosineLoss()(x, y, weight * mask)
    )
    nothing = AmplifiedCosineLoss()(x, y, mask=torch.zeros(2, 1, 1, 1))
    assert nothing.item() == 0.0


@pytest.mark.parametrize("shape", [(2, 16, 8, 9), (3, 300, 70), (70, 5)], ids=str)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "image", "none"])
def test_hidden_features_may_hold_anything(reduction, last, shape):
    x, y = (v.detach().float() for v in features(*shape))
    if last:
        x, y = (v.movedim(1, -1).contiguous().movedim(-1, 1) for v in (x, y))
    mask = (torch.rand(shape[0], 1, *shape[2:]) > 0.3).float()
    hidden = (mask == 0).expand(x.shape)
    loss = AmplifiedCosineLoss(reduction=reduction)

    def results(x, y):
        leaves = [v.clone().requires_grad_() for v in (x, y)]
        return with_gradients(loss(*leaves, mask=mask), leaves)

    wanted = results(x, y)
    for value in (NAN, math.inf, -1e30):
        found = results(x.masked_fill_(hidden, value), y.masked_fill_(hidden, -value))
        assert all(map(torch.equal, found, wanted))
        assert not any(gradient[hidden].any() for gradient in found[1:])


@pytest.mark.parametrize("shape", [(2, 16, 8, 9), (3, 300, 70)], ids=str)
@pytest.mark.parametrize("level", ["element", "image", "batch"])
def test_a_mask_of_ones_changes_no_bit(level, shape):
    """Not promised for channels_last, where a mask changes the order of additions."""
    images = [v.detach().float().requires_grad_() for v in features(*shape)]
    for reduction in REDUCTIONS[level]:
        loss = AmplifiedCosineLoss(amplify_over=level, reduction=reduction)
        plain = with_gradients(loss(*images), images)
        for mask in (torch.ones(shape[0]), torch.ones(shape[0], 1, *shape[2:], dtype=torch.bool)):
            assert all(map(torch.equal, with_gradients(loss(*images, mask=mask), images), plain))


def test_empty_batch_and_no_positions():
    x, y = features(0, 4, 3, 3)
    assert AmplifiedCosineLoss()(x, y).item() == 0.0
    assert AmplifiedCosineLoss(reduction="image")(x, y).shape == (0,)
    x, y = features(2, 4, 0, 3)
    assert AmplifiedCosineLoss(reduction="none")(x, y).shape == (2, 1, 0, 3)
    assert AmplifiedCosineLoss(reduction="sum")(x, y).item() == 0.0


@pytest.mark.parametrize("shape", [(4, 33, 40, 50), (300, 77)], ids=str)
def test_threads_do_not_change_a_bit(shape):
    images = features(*shape, dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(with_gradients(AmplifiedCosineLoss()(*images), images))
    finally:
        torch.set_num_threads(before)
    for each in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(each, found[0], strict=True))


@pytest.mark.parametrize("shape", [(3, 6), (2, 6, 5), (2, 6, 5, 4)], ids=str)
def test_compiles_to_one_graph(shape):
    torch._dynamo.reset()
    loss_function = AmplifiedCosineLoss()
    compiled = torch.compile(loss_function, fullgraph=True, backend="aot_eager")
    images = features(*shape)
    results = [with_gradients(f(*images), images) for f in (loss_function, compiled)]
    assert max(errors(*results)) < 1e-12


def test_vmap_over_heads():
    x, y = (v.detach() for v in features(3, 2, 6, 5))
    found = torch.vmap(AmplifiedCosineLoss())(x, y)
    expected = torch.stack([AmplifiedCosineLoss()(*pair) for pair in zip(x, y, strict=True)])
    torch.testing.assert_close(found, expected)


def test_copies_and_representation():
    original = AmplifiedCosineLoss(cosine_epsilon=0.3, eps=0.2)
    x, y = features(2, 3, 4)
    for twin in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert torch.equal(twin(x, y), original(x, y))
        assert "cosine_epsilon=0.3" in repr(twin)
    function = functional.amplified_cosine_loss(x, y, cosine_epsilon=0.3, eps=0.2)
    assert torch.equal(function, original(x, y))
    assert original.state_dict() == {}


def test_tangent_share():
    x = torch.ones(4, 3, 2)
    y = torch.ones(4, 3, 2)
    y[0] = -1.0
    assert AmplifiedCosineLoss().tangent_share(x, y).item() == 0.25


def test_anomaly_map():
    x, y = (v.detach() for v in features(2, 6, 9, 11))
    found = functional.anomaly_map(x, y, metric="cosine")
    torch.testing.assert_close(found, textbook(x, y)[:, 0])
    mask = torch.ones(1, 1, 9, 11)
    mask[..., 4:, :] = 0.0
    masked = functional.anomaly_map(x.masked_fill(mask == 0, NAN), y, mask, metric="cosine")
    torch.testing.assert_close(masked, (mask * textbook(x, y))[:, 0])


# ---- Errors ------------------------------------------------------------------------------------


def test_errors_come_before_any_work():
    x = torch.rand(2, 3, 4, 5)
    loss = AmplifiedCosineLoss()
    wrong: dict[str, Any] = {"epsilon": {"cosine_epsilon": "1"}, "range": {"data_range": 1.0}}
    cases = [
        (lambda: AmplifiedCosineLoss(cosine_epsilon=0.0), "cosine_epsilon must be between 1e-15"),
        (lambda: AmplifiedCosineLoss(amplify_over="image", reduction="none"), "reduction='none'"),
        (lambda: loss(x[0, 0, 0], x[0, 0, 0]), r"input must be features \(N, C, ...\)"),
        (lambda: loss(x[:, :0], x[:, :0]), "with at least one channel"),
        (lambda: loss(x, x[:1]), "input and target must have the same shape"),
        (lambda: loss(x, x, torch.rand(2, 3, 4, 5)), "weight must have one channel"),
        (lambda: loss(x, x, mask=torch.rand(1, 3, 1, 1)), "mask must have one channel"),
        (lambda: loss(x, x, torch.rand(2, 1, 4)), "weight of shape .* does not broadcast"),
        (lambda: loss(x, x, data_range=torch.ones(2)), "data_range must be None for the cosine"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="cosine_epsilon"):
        AmplifiedCosineLoss(**wrong["epsilon"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'data_range'"):
        AmplifiedCosineLoss(**wrong["range"])
    with pytest.raises(TypeError, match="same dtype"):
        loss(x, x.double())


@pytest.mark.kernels_only
@pytest.mark.beside_reference
def test_a_direct_call_refuses_what_it_does_not_compute():
    from lamp_kernels.ops import FlatSpec

    x = torch.rand(1, 3, 2, 2)
    spec = FlatSpec.of(LossSpec(terms=(Term("cosine"),)))
    operator = torch.ops.lamp_kernels.image_losses

    def call(mask=None, ranges=None, factors=None, coefficients=(1.0,), over="batch"):
        operator(
            x, x, None, mask, ranges, factors, coefficients, over, "batch", False, False, *spec
        )

    for options in (
        {"mask": torch.ones(1, 3, 2, 2)},
        {"mask": torch.ones(1, 1, 2, 2, dtype=torch.float64)},
        {"ranges": torch.ones(1)},
        {"factors": torch.ones(1, 2), "coefficients": (), "over": "nothing"},
        {"factors": torch.ones(1, 1)},
        {"coefficients": (1.0, 2.0)},
        {"over": "channel"},
    ):
        with pytest.raises(RuntimeError):
            call(**options)
