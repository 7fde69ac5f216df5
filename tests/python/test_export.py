"""export.py: the exported file computes what PyTorch computes, alone, and says what it needs."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from packages import optional
from uad import exporting
from uad.cli import export
from uad.data.base import to_unit
from uad.data.images import prepare
from uad.detector import load_detector
from uad.evaluation import image_scores
from uad.exporting import METADATA, ExportError
from uad.options import Scoring

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}


def needed(kind):
    """Skip, with a reason, without the packages that a format requires."""
    for name in ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" else ():
        pytest.importorskip(name, reason=f"{name} is not installed; requirements-dev.txt has it")


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, trained_run, tmp_path_factory):
    """The format, the exported file, and what the program printed."""
    needed(request.param)
    out = tmp_path_factory.mktemp("exported") / f"stripes{FORMATS[request.param]}"
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as errors:
        assert run(trained_run, "--format", request.param, "--out", out) == 0
    assert errors.getvalue() == ""
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return request.param, out, printed.getvalue()


@pytest.fixture
def detector(trained_run):
    return load_detector(trained_run)


def run(*arguments):
    return export.main([str(argument) for argument in arguments])


# Run without any code of this repository; the ONNX file without PyTorch, too.
ONNX = """
import sys
for name in ("lamp_kernels", "uad", "torch"):
    sys.modules[name] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
outputs = session.run(["map", "score"], {"images": np.load(sys.argv[2])})
"""
TORCH = """
import sys
for name in ("lamp_kernels", "uad"):
    sys.modules[name] = None
import numpy as np, torch
network = torch.export.load(sys.argv[1]).module()
with torch.no_grad():
    outputs = [each.numpy() for each in network(torch.from_numpy(np.load(sys.argv[2])))]
"""
SAVE = "np.savez(sys.argv[3], map=outputs[0], score=outputs[1])\n"


def test_the_file_alone_computes_the_maps_and_scores_of_the_run(
    exported, detector, image_root, trained_run, tmp_path
):
    kind, file, _ = exported
    paths = sorted((image_root / "test").glob("*/*.png"))
    assert len(paths) == 12  # another number of images than in the check of the program
    images = torch.stack([prepare(path, detector.preparation) for path in paths])
    np.save(tmp_path / "images.npy", to_unit(images).numpy())
    alone = shutil.copy(file, tmp_path / f"alone{file.suffix}")
    source = (ONNX if kind == "onnx" else TORCH) + SAVE
    names = (alone, tmp_path / "images.npy", tmp_path / "outputs.npz")
    command = [sys.executable, "-c", source, *map(str, names)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "outputs.npz") as outputs:
        found_maps, found_scores = outputs["map"], outputs["score"]
    expected = list(detector.score(paths))
    maps = np.stack([result.map.numpy() for result in expected])
    np.testing.assert_allclose(found_maps, maps, rtol=0, atol=1e-5 * maps.max())
    scores = [result.score for result in expected]
    np.testing.assert_allclose(found_scores, scores, rtol=1e-5)


def test_the_program_says_what_it_checked(exported, trained_run):
    kind, file, printed = exported
    lines = printed.splitlines()
    assert lines[0] == (
        f"{trained_run}/mse/checkpoint.pt: loss mse, trained on {load_detector(trained_run).data}"
    )
    runtime = "onnxruntime" if kind == "onnx" else "torch.export"
    assert lines[1].startswith(f"checked with {runtime}")
    assert lines[1].endswith(f"on 4 images of {trained_run}/examples.npz")
    assert lines[2].startswith("greatest difference from PyTorch: ")
    assert lines[3].startswith(f"{file}: {file.stat().st_size:,} bytes; loss mse, size 32, ")


def test_the_file_describes_its_input_and_its_threshold(exported, detector):
    kind, file, _ = exported
    threshold = detector.threshold()
    if kind == "onnx":
        session = optional("onnxruntime").InferenceSession(file)
        (images,) = session.get_inputs()
        assert (images.name, images.shape[1:]) == ("images", [1, 32, 32])
        assert [each.name for each in session.get_outputs()] == ["map", "score"]
        found = session.get_modelmeta().custom_metadata_map
        assert "full_scale" not in found  # nothing to say about 8-bit images
    else:
        extra = {METADATA: ""}
        torch.export.load(file, extra_files=extra)
        found = json.loads(extra[METADATA])
        assert found["full_scale"] is None
    assert (found["loss"], found["fit"]) == ("mse", "stretch")
    assert (int(found["size"]), int(found["channels"])) == (32, 1)
    assert float(found["threshold"]) == threshold.value
    assert float(found["rate"]) == pytest.approx(threshold.rate)


OTHER_SCORING = [
    Scoring(metric="ssim", smooth_sigma=0.0, pooling="max"),
    Scoring(metric="l1", smooth_sigma=1.0, pooling="mean"),
    Scoring(metric="msgms", mean_filter=21, pooling="topk", topk=7),
]
WAYS = [
    # Tracing four scales takes ten seconds in each format.
    pytest.param(kind, scoring, marks=[pytest.mark.thorough("MSGMS in another format")] * slow)
    for kind in FORMATS
    for scoring in OTHER_SCORING
    for slow in (kind == "torch" and scoring.metric == "msgms",)
]


@pytest.mark.parametrize(("kind", "scoring"), WAYS, ids=lambda way: getattr(way, "pooling", way))
def test_every_way_of_scoring_can_be_exported(kind, scoring, detector, trained_run, tmp_path):
    needed(kind)
    other = replace(detector, scoring=scoring)
    out = tmp_path / f"other{FORMATS[kind]}"
    check = exporting.export(other, kind, out, trained_run)
    assert check.difference < 1e-5
    assert out.is_file()
    with np.load(trained_run / "examples.npz") as arrays:
        images = torch.from_numpy(arrays["originals"])
    # The check compares something: other scores would not pass it.
    before = image_scores(detector.maps(images), detector.scoring)
    assert not torch.allclose(before, image_scores(other.maps(images), scoring), rtol=1e-3)


@pytest.mark.parametrize("output", ["map", "score"])
def test_a_file_that_differs_is_not_written(
    output, trained_run, tmp_path, capsys, monkeypatch, detector
):
    load = exporting._load_torch

    def wrong(file):
        runtime, compute = load(file)

        def changed(images):
            maps, scores = compute(images)
            return (maps * 1.001, scores) if output == "map" else (maps, scores * 1.001)

        return runtime, changed

    monkeypatch.setattr(exporting, "_load_torch", wrong)
    out = tmp_path / "wrong.pt2"
    assert run(trained_run, "--format", "torch", "--out", out) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"export.py: error: the {output} computed by torch.export differs")
    assert "by 0.001 of its greatest value" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_is_one_line(trained_run, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(exporting, "_write_torch", fail)
    out = tmp_path / "stripes.pt2"
    out.write_text("before")
    assert run(trained_run, "--format", "torch", "--out", out, "--overwrite") == 1
    message = "export.py: error: the export failed (RuntimeError: first second)\n"
    assert capsys.readouterr().err == message
    assert out.read_text() == "before"


def test_random_images_are_used_where_the_run_is_not(detector, trained_run, tmp_path):
    images, described = exporting.check_images(detector, tmp_path)
    assert images.shape == (4, 1, 32, 32)
    assert "4 random images, because the run's examples are not there" in described
    own, _ = exporting.check_images(detector, trained_run)
    with np.load(trained_run / "examples.npz") as arrays:
        assert any(torch.equal(own[0], each) for each in torch.from_numpy(arrays["originals"]))

    def not_a_number(images):
        return np.full((len(images), 32, 32), np.nan, np.float32), np.zeros(len(images), np.float32)

    with pytest.raises(ExportError, match="the map computed by x differs from PyTorch by nan"):
        exporting.compare(detector, images, described, "x", not_a_number)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--format", "torch", "--out", "a.onnx"], "--out must end in .pt2"),
        (["{run}", "--format", "torch", "--out", "no/a.pt2"], "no such folder: no"),
        (["{run}", "--format", "torch", "--out", "used.pt2"], "choose another name, or add --over"),
        (["none", "--format", "torch", "--out", "a.pt2"], "none: no such file"),
        (
            ["used.pt2", "--format", "torch", "--out", "a.pt2"],
            "an exported network; pass the check",
        ),
        (["{run}", "--loss", "l1", "--format", "torch", "--out", "a.pt2"], "l1/checkpoint.pt: no"),
        (
            ["{run}/mse/checkpoint.pt", "--loss", "mse", "--format", "torch", "--out", "a.pt2"],
            "--loss requires a run folder, got",
        ),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, trained_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("used.pt2").write_text("used")
    assert run(*(text.format(run=trained_run) for text in arguments)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("export.py: error: ")
    assert message in printed
    assert printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["used.pt2"]


def test_one_of_several_losses_has_to_be_named(trained_run, tmp_path, capsys):
    for loss in ("l1", "mse"):
        shutil.copytree(trained_run / "mse", tmp_path / "run" / loss)
    out = tmp_path / "stripes.pt2"
    assert run(tmp_path / "run", "--format", "torch", "--out", out) == 2
    assert "holds several checkpoints; pass one of" in capsys.readouterr().err
    assert run(tmp_path / "run", "--loss", "mse", "--format", "torch", "--out", out) == 0
    assert out.is_file()


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        (["onnx", "onnxscript"], "requires onnx and onnxscript: run pip install onnx onnxscript"),
        (["onnxscript"], "requires onnxscript: run pip install onnxscript"),
    ],
)
def test_missing_packages_are_named(absent, message, trained_run, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find(name)
    )
    assert run(trained_run, "--format", "onnx", "--out", tmp_path / "a.onnx") == 2
    assert capsys.readouterr().err == f"export.py: error: --format onnx {message}\n"
