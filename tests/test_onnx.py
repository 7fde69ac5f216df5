"""A network that returns its anomaly map, exported to ONNX: same map and score for every size."""

from typing import Any

import pytest
import torch

from lamp_kernels import backends, functional

REASON = "is not installed; it is in requirements-dev.txt, but not used by `make matrix`"
pytest.importorskip("onnxscript", reason=f"onnxscript {REASON}")
onnxruntime = pytest.importorskip("onnxruntime", reason=f"onnxruntime {REASON}")

pytestmark = [
    pytest.mark.cpu_only("uses the CPU build of onnxruntime"),
    pytest.mark.filterwarnings("ignore"),  # raised by the exporters themselves
]


class Network(torch.nn.Module):
    """Returns the map and the score, as in examples/anomalib_model.py."""

    def __init__(self, **options):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.options = options

    def forward(self, images):
        maps = functional.anomaly_map(self.layer(images).sigmoid(), images, **self.options)
        return maps, functional.anomaly_score(maps, pooling="topk", k=0.02)


def export(network, path, dynamo):
    images, names = torch.rand(2, 3, 32, 40), {0: "batch", 2: "height", 3: "width"}
    sizes: dict[str, Any] = {"dynamic_axes": {"images": names}}
    if dynamo:
        dims = {dim: torch.export.Dim(name, min=1 + 12 * dim) for dim, name in names.items()}
        sizes = {"dynamic_shapes": {"images": dims}, "verbose": False}
    torch.onnx.export(
        network,
        (images,),
        path,
        dynamo=dynamo,
        input_names=["images"],
        output_names=["maps", "scores"],
        **sizes,
    )


OPTIONS = [
    {},
    {"backend": "reference", "window_size": 21},
    {"smooth_sigma": 1.0, "channel_reduction": "max"},
    {"metric": "l1"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
def test_map_and_score_match_for_every_size(dynamo, options, tmp_path, capfd):
    network, path = Network(**options).eval(), tmp_path / "network.onnx"
    with torch.no_grad():
        export(network, str(path), dynamo)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in [(2, 3, 32, 40), (1, 3, 32, 40), (3, 3, 61, 45)]:
        images = torch.rand(size)
        found = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = network(images)
        for ours, theirs in zip(expected, found, strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
def test_requesting_a_kernel_backend_is_an_error(dynamo, tmp_path, capfd):
    if "native" not in backends.available():
        pytest.skip("this installation has no native kernels to request")
    network = Network(backend="native").eval()
    with torch.no_grad(), pytest.raises(Exception, match="its operators do not exist in ONNX"):
        export(network, str(tmp_path / "network.onnx"), dynamo)
