"""The modules follow the conventions of PyTorch's losses."""

import copy
import inspect
import pickle
from functools import partial
from typing import Any

import pytest
import torch

from lamp_kernels import (
    AmplifiedCharbonnierLoss,
    AmplifiedCosineLoss,
    AmplifiedGMSLoss,
    AmplifiedL1Loss,
    AmplifiedMSELoss,
    AmplifiedMSGMSLoss,
    AmplifiedMSSSIMLoss,
    AmplifiedReconstructionLoss,
    AmplifiedSSIMLoss,
    functional,
)

pytestmark = pytest.mark.usefixtures("each_backend")

CASES = [
    (AmplifiedSSIMLoss, functional.amplified_ssim_loss),
    (AmplifiedMSELoss, functional.amplified_mse_loss),
    (AmplifiedL1Loss, functional.amplified_l1_loss),
    (AmplifiedCharbonnierLoss, functional.amplified_charbonnier_loss),
    (AmplifiedGMSLoss, functional.amplified_gms_loss),
    (AmplifiedReconstructionLoss, functional.amplified_reconstruction_loss),
]
MODULES = [module for module, _ in CASES]
ALL: list[tuple[type, Any]] = [
    *CASES,
    (AmplifiedMSSSIMLoss, functional.amplified_ms_ssim_loss),
    (AmplifiedMSGMSLoss, functional.amplified_msgms_loss),
    (AmplifiedCosineLoss, functional.amplified_cosine_loss),
]


@pytest.mark.parametrize(("module", "function"), ALL)
def test_module_and_function_have_the_same_options_and_defaults(module, function):
    of_module = inspect.signature(module.__init__).parameters
    of_function = inspect.signature(function).parameters
    options = [name for name in of_function if name not in ("input", "target", "weight", "mask")]
    assert options == [name for name in of_module if name != "self"]
    for name in options:
        assert of_module[name].default == of_function[name].default
        assert of_function[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert of_module[name].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.beside_reference
@pytest.mark.parametrize(("module", "function"), CASES)
def test_every_option_of_the_module_reaches_the_function(module, function):
    x, y = torch.rand(2, 2, 3, 16, 16)
    weight = torch.rand(2, 1, 16, 16)
    others = {
        "data_range": 1.5,
        "window": "uniform",
        "window_size": 5,
        "sigma": 0.8,
        "k1": 0.2,
        "k2": 0.3,
        "padding": "zeros",
        "dissimilarity": "full",
        "amplification": "none",
        "amplify_over": "image",
        "eps": 0.7,
        "gamma": 3.0,
        "delta": 0.2,
        "reduction": "sum",
        "ssim": 0.3,
        "mse": 0.4,
        "l1": 0.5,
        "charbonnier": 0.6,
        "charbonnier_epsilon": 0.2,
        "gms": 0.7,
        "msgms": 0.8,
        "gms_constant": 0.01,
        "gms_scales": 2,
        "backend": "reference",
    }
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(module).parameters.items()
    }
    for name in defaults:
        if name == "spatial_dims":  # images of another shape
            continue
        without: dict[str, Any] = {}  # options required for this one to matter
        if name == "charbonnier_epsilon" and "charbonnier" in defaults:
            without = {"charbonnier": 1.0}
        if name in ("gms_constant", "gms_scales") and "msgms" in defaults:
            without = {"msgms": 1.0}
        if name in ("gamma", "delta"):
            without = {"amplification": "power"}
        options = {**without, name: others[name]}
        found = module(**options)(x, y, weight)
        assert torch.equal(found, function(x, y, weight, **options))
        if name not in ("backend", "amplify_over"):
            assert not torch.equal(found, function(x, y, weight, **without)), name


@pytest.mark.parametrize("module", MODULES)
def test_conventions(module):
    loss_function = module(reduction="sum", eps=0.05)
    assert isinstance(loss_function, torch.nn.modules.loss._Loss)
    assert loss_function.reduction == "sum"
    assert loss_function.state_dict() == {}
    assert list(loss_function.parameters()) == []
    assert repr(loss_function).startswith(f"{module.__name__}(")
    assert "eps=0.05" in repr(loss_function)
    assert "reduction='sum'" in repr(loss_function)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(module, clone):
    original = module(eps=0.2, amplify_over="image")
    twin = clone(original)
    x, y = torch.rand(2, 2, 3, 16, 16)
    assert repr(twin) == repr(original)
    assert torch.equal(twin(x, y), original(x, y))


def test_a_pickle_does_not_contain_the_checked_spec():
    """Its fields differ from version to version."""
    original = AmplifiedSSIMLoss(eps=0.2)
    assert original._spec is not None
    twin = pickle.loads(pickle.dumps(original))
    assert twin._spec is None
    assert original._spec is not None


@pytest.mark.parametrize("module", [*MODULES, AmplifiedMSSSIMLoss])
def test_a_pickle_of_an_earlier_version(module):
    """It lacks newer options, which take their defaults, and has attributes that are gone."""
    given = {"eps": 0.2, "data_range": 1.5}
    state = module(**given).__dict__.copy()
    for newer in ("_spec", "_options", "gamma", "delta", "charbonnier", "charbonnier_epsilon"):
        state.pop(newer, None)
    state["_names"] = tuple(name for name in state if name in inspect.signature(module).parameters)
    restored = module.__new__(module)
    restored.__setstate__(state)
    fresh = module(**given)
    assert repr(restored) == repr(fresh)
    x, y = torch.rand(2, 1, 2, 96, 96)
    assert torch.equal(restored(x, y), fresh(x, y))
    restored.amplification = fresh.amplification = "power"
    restored.delta = fresh.delta = 0.3  # a change of an option takes effect, also of a newer one
    assert torch.equal(restored(x, y), fresh(x, y))


def test_scale_weights_are_those_of_construction():
    weights = [0.4, 0.6]
    loss = AmplifiedMSSSIMLoss(scale_weights=weights, window_size=3)
    x, y = torch.rand(2, 1, 1, 16, 16)
    before = loss(x, y)
    weights[:] = [1.0, 0.0]
    loss.eps = loss.eps  # the next call builds the spec again
    assert torch.equal(loss(x, y), before)
    assert "scale_weights=(0.4, 0.6)" in repr(loss)
    loss.scale_weights = weights
    assert not torch.equal(loss(x, y), before)


def test_the_size_of_taps_is_not_shown():
    assert "window=[1, 2, 1], sigma" in repr(AmplifiedSSIMLoss(window=[1, 2, 1]))


def train(loss_function):
    """A typical training loop, written for MSELoss."""
    torch.manual_seed(0)
    images = torch.rand(8, 1, 16, 16)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 1, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = loss_function(model(images), images)
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history


@pytest.mark.parametrize("loss_function", [torch.nn.MSELoss(), *(module() for module in MODULES)])
def test_is_a_drop_in_replacement_for_mse_loss(loss_function):
    history = train(loss_function)
    assert history[-1] < 0.8 * history[0]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(AmplifiedMSELoss, torch.nn.MSELoss), (AmplifiedL1Loss, torch.nn.L1Loss)],
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4, 5, 6)])
def test_without_amplification_it_equals_pytorchs_loss(ours, theirs, reduction, shape):
    x, y = torch.rand(2, *shape)
    found = ours(amplification="none", reduction=reduction)(x, y)
    torch.testing.assert_close(found, theirs(reduction=reduction)(x, y))


# ---- The share on the tangent ------------------------------------------------------------------


@pytest.mark.parametrize("eps", [1e-2, 0.3])
@pytest.mark.parametrize("module", [AmplifiedSSIMLoss, AmplifiedMSELoss, AmplifiedL1Loss])
def test_tangent_share(module, eps):
    x, y = torch.rand(2, 3, 16, 16), 0.0 * torch.rand(2, 3, 16, 16)
    losses = module(amplification="none", reduction="none")(x, y)
    found = module(eps=eps).tangent_share(x.requires_grad_(), y)
    assert found.shape == ()
    assert not found.requires_grad
    torch.testing.assert_close(found, (losses > 1 - eps).float().mean())
    weight = torch.rand(2, 1, 16, 16) > 0.5
    wanted = (losses > 1 - eps)[weight.expand_as(losses)].float().mean()
    torch.testing.assert_close(module(eps=eps).tangent_share(x, y, weight), wanted)
    assert module(eps=eps).tangent_share(x[:0], y[:0]) == 0.0


def test_tangent_share_of_terms_and_scales():
    x, y = torch.rand(2, 1, 24, 24), torch.zeros(2, 1, 24, 24)
    parts = [
        (module(amplification="none", reduction="none")(x, y) > 0.7).flatten()
        for module in (partial(AmplifiedSSIMLoss, padding="valid"), AmplifiedMSELoss)
    ]
    loss = AmplifiedReconstructionLoss(padding="valid", eps=0.3)
    torch.testing.assert_close(loss.tangent_share(x, y), torch.cat(parts).float().mean())
    scales = AmplifiedMSSSIMLoss(scale_weights=(0.5, 0.5), dissimilarity="full", eps=0.3)
    assert scales.tangent_share(x, x) == 0.0
    assert scales.tangent_share(x, 1 - x) > 0.5


def test_tangent_share_reveals_images_outside_data_range():
    x, y = 255 * torch.rand(2, 3, 16, 16), 255 * torch.rand(2, 3, 16, 16)
    assert AmplifiedMSELoss().tangent_share(x, y) > 0.9
    assert AmplifiedMSELoss(data_range=255.0).tangent_share(x, y) < 0.01
