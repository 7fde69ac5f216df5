"""load_detector: which files it accepts, and what the detector says about images."""

from __future__ import annotations

import shutil
from itertools import chain, repeat

import numpy as np
import pytest
import torch
from PIL import Image
from uad.detector import DetectorError, load_detector
from uad.threshold import choose_threshold


@pytest.fixture
def checkpoint(trained_run, tmp_path):
    """A copy of the checkpoint alone, under another name."""
    return shutil.copy(trained_run / "mse" / "checkpoint.pt", tmp_path / "stripes.pt")


def change(checkpoint, edit):
    state = torch.load(checkpoint, weights_only=True)
    edit(state)
    torch.save(state, checkpoint)


def paths_of(image_root):
    """The test images in the order of the run's evaluation."""
    kinds = ("good", "block", "dot")
    return [path for kind in kinds for path in sorted((image_root / "test" / kind).iterdir())]


def test_a_checkpoint_alone_gives_the_scores_of_the_run(checkpoint, trained_run, image_root):
    results = list(load_detector(checkpoint).score(paths_of(image_root), batch_size=5))
    with np.load(trained_run / "mse" / "evaluation.npz") as arrays:
        expected = arrays["scores"]
    np.testing.assert_allclose([result.score for result in results], expected, rtol=1e-5)
    assert [result.name for result in results] == [path.name for path in paths_of(image_root)]
    for result in results:
        assert result.map is not None
        assert result.map.shape == (32, 32)
        assert not result.error


def test_the_map_is_highest_at_the_defect(checkpoint, image_root):
    for result in load_detector(checkpoint).score(sorted((image_root / "test/block").iterdir())):
        truth = image_root / "ground_truth" / "block" / f"{result.path.stem}_mask.png"
        mask = np.asarray(Image.open(truth)) > 0
        assert result.map is not None
        assert result.map[mask].mean() > 2 * result.map[~mask].mean()


def test_a_broken_file_is_an_error_and_the_others_are_scored(checkpoint, image_root, tmp_path):
    good = image_root / "test" / "good" / "00.png"
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:60])
    missing = tmp_path / "missing.png"
    detector = load_detector(checkpoint)
    (alone,) = detector.score([good])
    results = list(detector.score([broken, good, (missing, "shown name"), good], batch_size=3))
    assert [result.path for result in results] == [broken, good, missing, good]
    assert [bool(result.error) for result in results] == [True, False, True, False]
    assert results[2].name == "shown name"
    assert results[0].map is None
    assert np.isnan(results[0].score)
    assert str(tmp_path / "broken.png: ") not in results[0].error  # the path is not repeated
    assert results[1].score == pytest.approx(alone.score, rel=1e-6)


def test_only_one_batch_is_read_ahead(checkpoint, image_root):
    good = image_root / "test" / "good" / "00.png"

    def stop():
        raise AssertionError("read further than one batch")
        yield

    results = load_detector(checkpoint).score(chain(repeat(good, 3), stop()), batch_size=3)
    assert [next(results).name for _ in range(3)] == ["00.png"] * 3


def test_training_images_are_recognized(checkpoint, image_root):
    files = [image_root / "train" / "good" / "03.png", image_root / "test" / "good" / "03.png"]
    assert [result.trained_on for result in load_detector(checkpoint).score(files)] == [True, False]


def test_the_threshold_comes_from_the_stored_normal_scores(checkpoint):
    detector = load_detector(checkpoint)
    assert len(detector.normal_scores) == 4
    assert detector.threshold() == choose_threshold(detector.normal_scores, 0.2)
    assert detector.threshold(0.5) == choose_threshold(detector.normal_scores, 0.5)
    change(checkpoint, lambda state: state["detector"].update(normal_scores=[]))
    assert load_detector(checkpoint).threshold() is None


def test_a_diverged_network_gives_errors(checkpoint, image_root):
    detector = load_detector(checkpoint)
    with torch.no_grad():
        next(detector.network.parameters()).fill_(float("nan"))
    (result,) = detector.score([image_root / "test" / "good" / "00.png"])
    assert result.error == "the score is nan: the network has diverged"


def test_folders_with_one_checkpoint_are_accepted(trained_run, tmp_path):
    for folder in (trained_run, trained_run / "mse", str(trained_run)):
        assert load_detector(folder).loss == "mse"
    assert not load_detector(trained_run).network.training


def test_an_older_checkpoint_is_described_by_its_run_folder(trained_run, image_root, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(trained_run, old)
    change(old / "mse" / "checkpoint.pt", lambda state: state.pop("detector"))
    now, before = load_detector(old), load_detector(trained_run)
    assert now.preparation == before.preparation
    assert now.scoring == before.scoring
    assert now.normal_scores == before.normal_scores
    image = image_root / "test" / "dot" / "00.png"
    assert next(now.score([image])).score == next(before.score([image])).score

    (old / "mse" / "evaluation.npz").unlink()
    assert load_detector(old).threshold() is None
    alone = shutil.move(old / "mse" / "checkpoint.pt", tmp_path / "alone.pt")
    with pytest.raises(DetectorError, match=r"alone.pt: an older checkpoint.*leave it in its run"):
        load_detector(alone)


class Dangerous:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"model": Dangerous(str(tmp_path / "ran"))}, tmp_path / "evil.pt")
    with pytest.raises(DetectorError, match=r"evil.pt: damaged, or not a checkpoint of train.py"):
        load_detector(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b""), "damaged, or not a checkpoint of train.py"),
        (lambda path: path.write_text("hello"), "damaged, or not a checkpoint of train.py"),
        (cut, "damaged, or not a checkpoint of train.py"),
        (lambda path: torch.save([1], path), "damaged, or not a checkpoint of train.py"),
        (lambda path: torch.save({"model": 1}, path), "not a checkpoint of train.py: it holds no"),
        (
            lambda path: change(path, lambda state: state["detector"].update(format=2)),
            "its format is 2, and this version reads format 1",
        ),
        (
            lambda path: change(path, lambda state: state["detector"].pop("scoring")),
            "scoring must be",
        ),
        (
            lambda path: change(path, lambda state: state["detector"]["network"].update(width=8)),
            "size mismatch",
        ),
    ],
)
def test_an_unusable_file_is_one_line_that_names_it(checkpoint, spoil, message):
    spoil(checkpoint)
    with pytest.raises(DetectorError) as caught:
        load_detector(checkpoint)
    text = str(caught.value)
    assert text.startswith(f"{checkpoint}: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("", [1], "detector must be an object, got [1]"),
        ("", {}, "its format is None"),
        ("", None, "detector must be an object, got None"),
        ("loss", 1, "loss must be text, got 1"),
        ("data", None, "data must be text, got None"),
        ("network", [1], "network must be an object, got [1]"),
        ("network.width", "4", "network width must be a positive integer, got '4'"),
        ("network.width", 10**30, "damaged, or not a checkpoint"),
        ("network.width", 10**6, "size mismatch"),
        ("network.depth", 3, "network must have channels, width and latent"),
        ("network.channels", 2, "network channels must be 1 or 3, got 2"),
        ("preparation", "x", "preparation must be an object, got 'x'"),
        ("preparation.fit", "foo", "preparation fit must be one of stretch, pad, crop, got 'foo'"),
        ("preparation.fit", ["pad"], "preparation fit must be one of stretch, pad, crop"),
        ("preparation.size", 32.0, "preparation size must be an integer from 16 to"),
        ("preparation.size", 10**9, "preparation size must be an integer from 16 to"),
        ("preparation.channels", 3, "preparation channels must be 1, got 3"),
        ("preparation.full_scale", float("nan"), "preparation full_scale must be above 0"),
        ("preparation.full_scale", 0, "preparation full_scale must be above 0"),
        ("preparation.eight_bit", False, "preparation eight_bit must be true without"),
        ("preparation.unknown", 1, "TypeError"),
        ("scoring", None, "scoring must be an object, got None"),
        ("scoring.pooling", "foo", "scoring pooling must be one of max, mean, topk, got 'foo'"),
        ("scoring.metric", 1, "scoring metric must be one of mse, l1, ssim, gms, msgms, got 1"),
        ("scoring.mean_filter", 4, "scoring mean_filter must be 0 or an odd integer, got 4"),
        ("scoring.mean_filter", "5", "scoring mean_filter must be 0 or an odd integer, got '5'"),
        ("scoring.smooth_sigma", -1.0, "scoring smooth_sigma must be 0 or more, got -1.0"),
        ("scoring.smooth_sigma", 1e9, "ValueError"),
        ("scoring.topk", 0, "scoring topk must be a positive integer or a fraction, got 0"),
        ("scoring.topk", 10**6, "ValueError"),
        ("false_positive_rate", 1.5, "false_positive_rate must be between 0 and 1, got 1.5"),
        ("false_positive_rate", "x", "false_positive_rate must be between 0 and 1, got 'x'"),
        ("normal_scores", 1, "normal_scores must be a list, got 1"),
        ("normal_scores", [float("nan")], "normal_scores must be finite numbers, got nan"),
        ("normal_scores", [1e300], "normal_scores must be finite numbers, got 1e+300"),
        ("normal_scores", ["a"], "normal_scores must be finite numbers, got 'a'"),
        ("fingerprints", [["a"]], "fingerprints must be texts, got ['a']"),
    ],
)
def test_an_edited_description_is_one_line_that_names_the_file(checkpoint, place, value, message):
    def edit(state):
        *above, last = ["detector", *filter(None, place.split("."))]
        for name in above:
            state = state[name]
        state[last] = value

    change(checkpoint, edit)
    with pytest.raises(DetectorError) as caught:
        load_detector(checkpoint)
    text = str(caught.value)
    assert text.startswith(f"{checkpoint}: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize("weight", [1, "x", torch.zeros(3, dtype=torch.int64)])
def test_weights_of_another_kind_are_one_line(checkpoint, weight):
    change(checkpoint, lambda state: state["model"].update({"encoder.0.bias": weight}))
    with pytest.raises(DetectorError, match=r"encoder.0.bias must be floating-point"):
        load_detector(checkpoint)
    change(checkpoint, lambda state: state["model"].pop("encoder.0.bias"))
    with pytest.raises(DetectorError, match="model must be"):
        load_detector(checkpoint)


def test_a_folder_without_or_with_several_checkpoints_says_what_to_pass(trained_run, tmp_path):
    with pytest.raises(DetectorError, match=r"is a folder without a checkpoint; pass <run>"):
        load_detector(tmp_path)
    for loss in ("l1", "mse"):
        shutil.copytree(trained_run / "mse", tmp_path / loss)
    expected = f"pass one of {tmp_path}/l1/checkpoint.pt, {tmp_path}/mse/checkpoint.pt"
    with pytest.raises(DetectorError) as caught:
        load_detector(tmp_path)
    assert str(caught.value).endswith(expected)
