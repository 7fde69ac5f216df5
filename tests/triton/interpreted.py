"""Functions that tests call in the process that interprets Triton's kernels on the CPU.

TRITON_INTERPRET=1 must be set before Triton is imported, and one process cannot both interpret and
compile, so the test process itself does neither.
"""

from collections.abc import Callable
from typing import Any

import torch
from layouts import LAYOUTS
from scenes import pair

from lamp_kernels import backends, functional, ops
from lamp_kernels.backends.triton.interpreter import INTERPRETED
from lamp_kernels.spec import COMBINED, METRICS, LossSpec, Metric, Padding, Reduction, Term
from lamp_kernels.tensors import compute_dtype


def start() -> str | None:
    """Prepare the process: fill new memory with NaN, and make the interpreter faster.

    Returns the reason if there is no interpreter here, or None.
    """
    reason = backends.BACKENDS["triton"].unavailable_reason()
    if reason is not None:
        return reason
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    deterministic: Any = torch.utils.deterministic  # a property that is not annotated
    deterministic.fill_uninitialized_memory = True
    from triton.runtime import interpreter

    patched = set()

    def call(self: Any, *arguments: Any, **others: Any) -> Any:
        """A kernel's call of a function, which is patched once.

        The interpreter patches it at each call, which took two thirds of the time.
        """
        module = self.fn.__globals__["__name__"]
        if module not in patched:
            patched.add(module)
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*arguments, **others)

    interpreter.InterpretedFunction.__call__ = call
    return None


def is_ready() -> tuple[bool, bool, bool]:
    """Whether kernels are interpreted, and new memory is NaN for both ways to allocate it."""
    by_function, by_method = torch.empty(100), torch.ones(1).new_empty(100)
    return INTERPRETED, bool(by_function.isnan().all()), bool(by_method.isnan().all())


# ---- Tiles ---------------------------------------------------------------------------------------


class Tiles:
    """A context with small tiles and small groups of planes, so that there are seams."""

    def __init__(self, columns: int | None, rows: int, scratch: int) -> None:
        from lamp_kernels.backends.triton import device, tiling

        self._device, self._columns = device, columns
        self._before = device.properties
        if columns is not None:

            def properties(_: torch.device, dtype: torch.dtype) -> tiling.Device:
                known = self._before(torch.device("cpu"), dtype)
                lanes = max(columns // known.across, 1)
                return known._replace(lanes=lanes, highest=rows, scratch=scratch)

            device.properties = properties  # type: ignore[assignment] # without a cache

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._device.properties = self._before


def devices() -> dict[str, tuple[int, ...]]:
    """Of devices: lanes, multiprocessors, warps at once (float32, float64), MiB of h planes."""
    from unittest import mock

    from lamp_kernels.backends.triton import device

    properties = {
        "MI300": {"multi_processor_count": 304, "warp_size": 64, "L2_cache_size": 4 * 2**20},
        "RX 7900": {"multi_processor_count": 48, "warp_size": 32, "L2_cache_size": 6 * 2**20},
        "RTX 4090": {"multi_processor_count": 128, "warp_size": 32, "L2_cache_size": 72 * 2**20},
        "H100": {"multi_processor_count": 132, "warp_size": 32, "L2_cache_size": 50 * 2**20},
    }
    found: dict[str, tuple[int, ...]] = {}
    for index, (name, values) in enumerate(properties.items()):
        hip = "6.4" if values["multi_processor_count"] in (304, 48) else None
        with (
            mock.patch.object(device, "INTERPRETED", False),
            mock.patch.object(torch.version, "hip", hip),
            mock.patch.object(
                torch.cuda, "get_device_properties", lambda _, values=values: mock.Mock(**values)
            ),
        ):
            single, double = (
                device.properties(torch.device("cuda", index), dtype)
                for dtype in (torch.float32, torch.float64)
            )
        found[name] = (
            single.lanes, single.multiprocessors, single.warps_at_once, double.warps_at_once,
            single.scratch // 2**20,
        )  # fmt: skip
        assert double.across == 1
        assert double.lanes == single.lanes
        assert double.scratch == single.scratch
    device.properties.cache_clear()
    return found


# ---- Losses against the reference ----------------------------------------------------------------


def errors(
    *,
    shape: tuple[int, ...] = (1, 1, 9, 13),
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32),
    layouts: tuple[str, str] = ("contiguous", "contiguous"),
    grad: tuple[bool, bool] = (True, False),
    weight: tuple[int, ...] | None = None,
    mask: bool = False,
    terms: dict[str, float] | None = None,
    tile: tuple[int, int] | None = None,
    scratch: int = 2**26,
    scene: tuple[Any, ...] | None = None,
    unmasked_from: int | None = None,
    ranges: tuple[float, ...] | None = None,
    hidden: tuple[int, ...] | None = None,
    hidden_layout: str = "contiguous",
    shown: float = 2 / 3,
    **options: Any,
) -> list[float]:
    """Relative errors of the loss and of the requested gradients, against float64.

    tile: columns and rows of a program; None for the whole image.
    scene: arguments of scenes.pair; the image is its middle.
    unmasked_from: the first column of nonzero weight.
    ranges: data_range as a tensor, one per image.
    hidden: the shape of a mask inside the window; where it is 0 the images are NaN and infinite.
    shown: about the share of its elements that are not 0.
    """
    torch.manual_seed(0)
    options = {"window_size": 5, **options}
    scale = options.get("data_range", 1.0)
    if ranges is not None:
        options["data_range"] = torch.tensor(ranges)
        scale = options["data_range"].double().view(-1, *[1] * (len(shape) - 1))
    if scene is None:
        images = [scale * torch.rand(shape, dtype=torch.float64) for _ in range(2)]
    else:
        images = [middle(image, shape) for image in pair(*scene)]
    images = [image.to(dtype) for image, dtype in zip(images, dtypes, strict=True)]
    if len(shape) == 4:
        images = [LAYOUTS[name](image) for name, image in zip(layouts, images, strict=True)]
    m = None if weight is None else torch.rand(weight, dtype=torch.float64)
    if mask:
        assert m is not None
        m = m > 0.4
    if unmasked_from is not None:
        m = (torch.arange(shape[-1]) >= unmasked_from).double().view(1, 1, 1, -1)
    inside = None
    if hidden is not None:
        inside = torch.rand(hidden)
        inside = LAYOUTS[hidden_layout](inside.masked_fill(inside < 1 - shown, 0.0))
        images = [
            image.masked_fill(inside == 0, value)
            for image, value in zip(images, (torch.nan, torch.inf), strict=True)
        ]
    coefficients: dict[str, Any] = {**dict.fromkeys(METRICS, 0.0), **(terms or {"ssim": 1.0})}

    def results(name: str, pair: list[torch.Tensor]) -> list[torch.Tensor]:
        leaves = [
            image.detach().clone(memory_format=torch.preserve_format).requires_grad_(wanted)
            for image, wanted in zip(pair, grad, strict=True)
        ]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtypes[0] != dtypes[1]):
            loss = functional.amplified_reconstruction_loss(
                leaves[0], leaves[1], m, mask=inside, **coefficients, **options, backend=name
            )
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        upstream = torch.linspace(0.5, 1.5, loss.numel(), dtype=torch.float64).view(loss.shape)
        found = (
            torch.autograd.grad((loss * upstream.to(loss.dtype)).sum(), wanted) if wanted else ()
        )
        assert all(g.dtype == leaf.dtype for g, leaf in zip(found, wanted, strict=True))
        return [loss.detach(), *found]

    exact = results("reference", [image.double() for image in images])
    columns, rows = tile or (None, 0)
    with Tiles(columns, rows, scratch):
        found = results("triton", images)
    assert found[0].dtype == compute_dtype(*dtypes)
    assert all(one.shape == other.shape for one, other in zip(found, exact, strict=True))
    assert not any(tensor.isnan().any() for tensor in found)
    return [
        ((one.double() - other).norm() / other.norm().clamp(min=1e-300)).item()
        for one, other in zip(found, exact, strict=True)
    ]


def middle(image: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The middle of an image, where the edges of a scene are."""
    sides = zip(image.shape, shape, strict=True)
    return image[tuple(slice((whole - part) // 2, (whole + part) // 2) for whole, part in sides)]


def fuzz(case: Any, dtype: torch.dtype) -> None:
    """Check a case of tests/test_fuzz.py; raises if the error exceeds what the library promises."""
    import test_fuzz

    test_fuzz.check(case, dtype, "triton")


def errors_of_wide_pixels(**case: Any) -> list[float]:
    """As `errors`, with every pixel count treated as too large for 32 bits."""
    from lamp_kernels.backends.triton import layout

    before = layout.NARROW
    layout.NARROW = 0
    try:
        return errors(**case)
    finally:
        layout.NARROW = before


def tuned_errors(**case: Any) -> tuple[int, list[float]]:
    """How many candidates an autotuned call measures, and its errors.

    In the first call the last candidate is the fastest; a second call measures nothing.
    """
    from lamp_kernels.backends.triton import autotune

    before = autotune.wanted, autotune.milliseconds
    runs = []

    def milliseconds(run: Callable[[], object]) -> float:
        run()
        runs.append(run)
        return -len(runs)

    autotune.wanted, autotune.milliseconds = lambda: True, milliseconds
    try:
        first = errors(**case)
        measured = len(runs)
        assert errors(**case) == first
        assert len(runs) == measured
        return measured, first
    finally:
        autotune.wanted, autotune.milliseconds = before


def errors_of_a_mask_of_ones(padding: Padding, dtype: torch.dtype, size: int) -> list[float]:
    """How far loss and gradients under a mask of ones are from those without one, relatively."""
    images = torch.rand(2, 2, 1, 9, 13, dtype=dtype).unbind(0)
    results = []
    for mask in (torch.ones(1, 1, 1, 1), None):
        leaves = [image.clone().requires_grad_() for image in images]
        loss = functional.amplified_reconstruction_loss(
            leaves[0], leaves[1], mask=mask, l1=0.5, window_size=size, padding=padding,
            backend="triton",
        )  # fmt: skip
        results.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    return [
        ((one - other).norm() / other.norm()).item() for one, other in zip(*results, strict=True)
    ]


def error_of_few_unmasked_pixels() -> float:
    """The error of a bright map under a mask that hides every pixel of the sample of the shifts."""
    from lamp_kernels.backends.triton.launch import SHIFT_SAMPLES

    height, width = 40, 150
    i = torch.arange(SHIFT_SAMPLES)
    mask = torch.ones(1, 1, height, width)
    rows, columns = (
        ((i * step) & 0xFFFFFFFF) * size >> 32
        for step, size in ((3242174889, height), (2447445414, width))
    )
    mask[..., rows, columns] = 0.0
    mask[..., 10:, :] = 0.0  # and most others
    mask[..., :, 60:] = 0.0
    assert 100 < mask.sum() < 600
    y = 0.95 + 1e-3 * torch.rand(1, 1, height, width)
    x = (y + 1e-4 * torch.randn_like(y)).masked_fill(mask == 0, 1e5)
    maps = [
        functional.amplified_ssim_loss(
            x.to(dtype), y.to(dtype), mask=mask, window_size=3, reduction="none", backend=name
        ).double()
        for name, dtype in (("triton", torch.float32), ("reference", torch.float64))
    ]
    return ((maps[0] - maps[1]).norm() / maps[1].norm()).item()


def loss_of_hidden_images() -> tuple[float, float]:
    """The loss of images that a mask hides, and the greatest gradient."""
    x = torch.full((2, 1, 4, 5), torch.nan, requires_grad=True)
    loss = functional.amplified_reconstruction_loss(
        x, x.detach(), mask=torch.zeros(2), l1=1.0, window_size=3, backend="triton"
    )
    (gradient,) = torch.autograd.grad(loss, x)
    return loss.item(), gradient.abs().max().item()


def loss_of_equal_images() -> tuple[float, float]:
    """The loss, and the greatest gradient."""
    image = torch.rand(1, 1, 8, 9, requires_grad=True)
    loss = functional.amplified_reconstruction_loss(
        image, image.detach(), l1=1.0, window_size=5, backend="triton"
    )
    (gradient,) = torch.autograd.grad(loss, image)
    return loss.item(), gradient.abs().max().item()


def windows_that_see_nan(padding: Padding) -> bool:
    """Whether map and gradient are NaN exactly where those of the reference are."""
    x, y = torch.rand(2, 1, 1, 9, 14).unbind(0)
    x[0, 0, 2, 3] = torch.nan
    x[0, 0, 8, 13] = torch.nan  # a corner: its windows reach beyond the edge
    same = []
    reductions: tuple[Reduction, ...] = ("none", "sum")
    for reduction in reductions:
        results = []
        for name in ("triton", "reference"):
            leaf = x.clone().requires_grad_()
            loss = functional.amplified_ssim_loss(
                leaf, y, window_size=3, padding=padding, reduction=reduction, backend=name
            )
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            results.append((loss.isnan(), gradient.isnan()))
        of_loss, of_gradient = results[0]
        assert of_gradient.any()
        assert not of_gradient.all()
        same += [torch.equal(of_loss, results[1][0]), torch.equal(of_gradient, results[1][1])]
    return all(same)


def least_loss() -> float:
    """The least loss of nearly equal flat images, where rounding may make a variance negative."""
    x, y = (image[:1, :, :16, :16].float() for image in pair("flat", 1e-5))
    losses = functional.amplified_ssim_loss(x, y, window_size=5, reduction="none", backend="triton")
    return losses.min().item()


def losses_of_nothing() -> list[list[int]]:
    """Shapes of the losses of empty batches, and of images without pixels."""
    shapes = []
    reductions: tuple[Reduction, ...] = ("mean", "image", "none")
    for shape, ssim in (((0, 3, 9, 9), 1.0), ((0, 5), 0.0), ((2, 0), 0.0)):
        for reduction in reductions:
            for weight in (None, torch.ones(shape)):
                x = torch.rand(shape, requires_grad=True)
                loss = functional.amplified_reconstruction_loss(
                    x, x.detach(), weight, ssim=ssim, reduction=reduction, backend="triton"
                )
                loss.sum().backward()
                assert x.grad is not None
                assert x.grad.shape == x.shape
                assert loss.detach().sum() == 0
            shapes.append(list(loss.shape))
    return shapes


def same_twice() -> bool:
    """Whether two calls agree bit by bit."""
    x, y = torch.rand(2, 1, 2, 9, 13).unbind(0)
    results = []
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        loss = functional.amplified_reconstruction_loss(leaf, y, window_size=3, backend="triton")
        results.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    return all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def gms_of_flat_images() -> tuple[float, float, float, bool]:
    """The loss of flat images and its greatest gradient; that beside a texture, and if finite."""
    flat = torch.full((1, 1, 5, 6), 0.3)
    results = []
    for other in (flat + 0.2, torch.rand(1, 1, 5, 6)):
        leaves = [image.clone().requires_grad_() for image in (flat, other)]
        loss = functional.amplified_gms_loss(*leaves, backend="triton")
        results.append((loss.item(), torch.cat(torch.autograd.grad(loss, leaves))))
    (of_flat, by_flat), (of_texture, by_texture) = results
    return of_flat, by_flat.abs().max().item(), of_texture, bool(by_texture.isfinite().all())


def gms_of_nan() -> torch.Tensor:
    """Where the map is NaN if the input is NaN in row 4 and column 6."""
    x, y = torch.rand(2, 1, 1, 9, 10).unbind(0)
    x[..., 4, 6] = torch.nan
    return functional.amplified_gms_loss(x, y, reduction="none", backend="triton")[0, 0].isnan()


def gms_twice() -> bool:
    """Whether two calls agree bit by bit, and the loss of an empty batch is 0."""
    x, y = torch.rand(2, 1, 2, 9, 13).unbind(0)
    results = []
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        loss = functional.amplified_gms_loss(leaf, y, backend="triton")
        results.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    nothing = functional.amplified_gms_loss(x[:0], y[:0], backend="triton")
    same = all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    return same and nothing.item() == 0.0


# ---- The operators -------------------------------------------------------------------------------


def _flat_spec(metrics: tuple[Metric, ...]) -> ops.FlatSpec:
    return ops.FlatSpec.of(LossSpec(tuple(map(Term, metrics)), window_size=3))


def opcheck(
    layout: str, dtype: torch.dtype, grad: tuple[bool, bool], sums: str, mean_over: str | None
) -> None:
    """PyTorch's own check of schema, fake kernel, autograd and compilation."""
    metrics: tuple[Metric, ...] = ("ssim", "l1") if sums == "terms" else ("ssim",)
    x, y = (
        LAYOUTS[layout](torch.rand(2, 2, 5, 6).to(dtype)).requires_grad_(wanted) for wanted in grad
    )
    own = torch.rand(2, len(metrics), dtype=compute_dtype(dtype))
    weight = torch.rand(2, 1, 5, 6, dtype=own.dtype)
    optional = (weight > 0.3).to(own.dtype), torch.rand(2, dtype=own.dtype)
    factors: tuple[Any, ...] = (own, (), "nothing")
    if mean_over is not None:
        factors = (None, [0.5, 3.0][: len(metrics)], mean_over)
    wanted = (False, False) if sums == "terms" else grad
    operators = torch.ops.lamp_kernels_triton
    torch.library.opcheck(
        operators.image_losses.default,
        (x, y, weight, *optional, *factors, sums, *wanted, *_flat_spec(metrics)),
    )
    torch.library.opcheck(
        operators.loss_map.default,
        (x, y, *optional, torch.rand(1, dtype=own.dtype), *_flat_spec(("mse",))),
    )
    for factor in (own[:, 0], own[0, 0]):
        torch.library.opcheck(operators.scale_.default, (weight, factor))


def error_of(change: dict[str, Any]) -> str | None:
    """The message of the RuntimeError that a bad call of image_losses raises, or None."""
    arguments: dict[str, Any] = {
        "x": torch.rand(2, 3, 9, 10),
        "y": torch.rand(2, 3, 9, 10),
        "weight": None,
        "mask": None,
        "data_ranges": None,
        "factors": torch.rand(2, 1),
        "coefficients": (),
        "mean_over": "nothing",
        "sums": "images",
    }
    spec = _flat_spec(("ssim",))._asdict()
    arguments |= {name: value for name, value in change.items() if name not in spec}
    spec |= {name: value for name, value in change.items() if name in spec}
    given = (*arguments.values(), True, True, *spec.values())
    try:
        torch.ops.lamp_kernels_triton.image_losses(*given)
    except RuntimeError as error:
        return str(error)
    return None


def sums_agree(shape: tuple[int, ...], metrics: tuple[Metric, ...], dtype: torch.dtype) -> float:
    """How far the sums over images and batch are from those of the terms.

    Relative to the sum of the terms' magnitudes. Shared factors and factors of each image must
    agree, and all gradients must be the same bits.
    """
    x, y = torch.rand(2, *shape, dtype=dtype).unbind(0)
    spec = _flat_spec(metrics)
    operator = torch.ops.lamp_kernels_triton.image_losses
    coefficients = [0.5, -3.0, 2.0][: len(metrics)]
    found: dict[str, torch.Tensor] = {}
    gradients = []
    for sums in ("terms", "images", "batch"):
        shared = (None, coefficients, "batch")
        found[sums], *of_images = operator(x, y, None, None, None, *shared, sums, True, True, *spec)
        gradients.append(of_images)
    count = max(x.numel(), 1)
    own = torch.tensor([c / count for c in coefficients], dtype=dtype).repeat(shape[0], 1)
    same, *of_images = operator(
        x, y, None, None, None, own, (), "nothing", "terms", True, True, *spec
    )
    gradients.append(of_images)
    assert torch.equal(same, found["terms"])
    assert all(
        torch.equal(one, other)
        for some in gradients[1:]
        for one, other in zip(some, gradients[0], strict=True)
    )
    assert [found[sums].dim() for sums in ("terms", "images", "batch")] == [2, 1, 0]
    terms = found["terms"].double()
    apart = (
        (found["images"] - terms.sum(1)).abs().sum() + (found["batch"] - terms.sum()).abs()
    ).item()
    return apart / terms.abs().sum().clamp(min=1e-300).item()


def factors_in_memory(shape: tuple[int, ...], metrics: tuple[Metric, ...]) -> bool:
    """Whether factors give the same bits as numbers and as the tensor that many terms need."""
    from unittest import mock

    from lamp_kernels.backends.triton import call

    x, y = torch.rand(2, *shape).unbind(0)
    given = (x, y, None, None, None, None, [0.5, 3.0, 2.0][: len(metrics)], "batch")
    same = []
    for sums in ("terms", "images", "batch"):
        rest = (sums, True, True, *_flat_spec(metrics))
        numbers = torch.ops.lamp_kernels_triton.image_losses(*given, *rest)
        with mock.patch.object(call, "SHARED_SLOTS", 0):
            tensor = torch.ops.lamp_kernels_triton.image_losses(*given, *rest)
        same += [torch.equal(one, other) for one, other in zip(numbers, tensor, strict=True)]
    return all(same)


def second_derivative() -> str | None:
    """The message of the error that it raises."""
    x = torch.rand(1, 1, 5, 6, requires_grad=True)
    loss = functional.amplified_ssim_loss(
        x, torch.rand(1, 1, 5, 6), window_size=3, backend="triton"
    )
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    try:
        gradient.sum().backward()
    except RuntimeError as error:
        return str(error)
    return None


def scaled(layout: str, dtype: torch.dtype, factors: list[float], shape: tuple[int, ...]) -> bool:
    """Whether scale_ gives the bits of a multiplication, in a part of a larger tensor."""
    whole = torch.randn(len(factors) + 1, *shape, dtype=dtype)
    whole = LAYOUTS[layout](whole)
    whole[0, 0, 0, 0] = torch.nan
    factor = torch.tensor(factors, dtype=dtype)
    if len(set(factors)) == 1:
        factor = factor[:1].expand(len(factors)) if layout == "contiguous" else factor[0]
    expected = whole.clone(memory_format=torch.preserve_format)
    expected[1:] *= factor.view(-1, 1, 1, 1)
    torch.ops.lamp_kernels_triton.scale_(whole[1:], factor)
    bits = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    return torch.equal(whole.view(bits), expected.view(bits))


def is_not_read_where_the_factor_is_1() -> bool:
    """Multiplication would turn a signaling NaN into a quiet one."""
    bits = torch.full((2, 1, 3, 5), 0x7FA00001, dtype=torch.int32)
    gradient = bits.clone().view(torch.float32)
    torch.ops.lamp_kernels_triton.scale_(gradient, torch.tensor([1.0, 2.0]))
    same = gradient.view(torch.int32) == bits
    return bool(same[0].all()) and not same[1].any()


def error_of_scale(gradient: torch.Tensor, factor: torch.Tensor) -> str | None:
    """The message of the RuntimeError that a bad call raises, or None."""
    try:
        torch.ops.lamp_kernels_triton.scale_(gradient, factor)
    except RuntimeError as error:
        return str(error)
    return None


def compiled_agrees() -> bool:
    """Whether torch.compile captures a loss as one graph and gives the same result."""

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.amplified_ssim_loss(x, y, window_size=3, backend="triton")

    x, y = torch.rand(2, 1, 1, 6, 7).unbind(0)
    leaf = x.clone().requires_grad_()
    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        loss = function(leaf, y)
        results.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    return all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def chosen() -> dict[str, str]:
    """Which backend is chosen for CPU tensors, and the report."""
    image = torch.rand(1, 1, 16, 16)
    try:
        large_window = backends.resolve("triton", image, window_size=17)
    except ValueError as error:
        large_window = str(error)
    masked = {}
    for terms, mse, window_size in (("SSIM", 0.0, 13), ("several terms", 1.0, 11)):
        try:
            functional.amplified_reconstruction_loss(
                image.double(), image.double(), mask=image, mse=mse, window_size=window_size,
                backend="triton",
            )  # fmt: skip
        except ValueError as error:
            masked[f"mask in float64, {terms}"] = str(error)
    return {
        "automatic": backends.resolve(None, image),
        "requested": backends.resolve("triton", image),
        "large window": large_window,
        **masked,
        "report": backends.report(),
    }


# ---- Formulas ------------------------------------------------------------------------------------


def formula(
    name: str, given: torch.Tensor, constants: tuple[float, ...] = (), **fixed: float | str
) -> torch.Tensor:
    """Rows of results of a function of formulas.py for rows of numbers."""
    import formula_kernels

    return formula_kernels.call(name, given, constants, fixed)


def amplification_constants(
    amplification: str, parameters: tuple[float, ...]
) -> tuple[float, float, float]:
    """The three numbers that the kernels take."""
    from lamp_kernels.backends.triton import formulas

    return formulas.amplification_constants(amplification, parameters)


def bit_mask(metrics: str) -> tuple[int, int, list[int]]:
    """The mask of these metrics, the number of its terms, and the index of each."""
    from lamp_kernels.backends.triton import formulas, kernel_spec

    names = tuple(metric for metric in COMBINED if metric in metrics.split("+"))
    mask = kernel_spec.kernel_spec(_flat_spec(names)).metrics
    places = [COMBINED.index(metric) for metric in names]
    return mask, formulas.term_count(mask), [formulas.term_index(mask, m) for m in places]
