"""What the first paragraph of a report says, and what it does not say."""

from __future__ import annotations

import pytest
from run_files import Constant, Pooling, make_data, make_run, plain
from torch import nn
from uad.data import GOOD
from uad.report.run import read_run
from uad.report.verdict import verdict

FLAT = 12 * (0.1,)  # a training that has converged


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Run folders with one loss and with two."""
    root = tmp_path_factory.mktemp("verdict")
    return {
        count: make_run(root / str(count), losses=("mse", "l1")[:count], history=FLAT)
        for count in (1, 2)
    }


@pytest.fixture
def single(folders):
    return read_run(folders[1])


@pytest.fixture
def double(folders):
    return read_run(folders[2])


def text_of(run):
    text = plain(verdict(run))
    for mark in ",:.)":
        text = text.replace(f" {mark}", mark)
    return text


def set_aurocs(run, losses, mean, blurred):
    """Replace the image AUROC of each loss and of the baselines."""
    for arm, value in zip(run.arms.values(), losses, strict=True):
        arm["evaluation"]["image_auroc"] = value
    for name, value in (("mean image", mean), ("blurred copy", blurred)):
        run.baselines[name]["image_auroc"] = value
    return run


def set_psnr(run, losses, mean):
    for arm, value in zip(run.arms.values(), losses, strict=True):
        arm["evaluation"]["psnr_normal"] = value
    run.baselines["mean image"]["psnr_normal"] = mean
    return run


def set_losses(run, *histories):
    for arm, losses in zip(run.arms.values(), histories, strict=True):
        arm["history"]["loss"] = list(losses)
    return run


def falling(factor, epochs):
    return [factor**epoch for epoch in range(epochs)]


class Faint(nn.Module):
    """A uniform gray on which the image is faintly visible."""

    def __init__(self, contrast):
        super().__init__()
        self.contrast = contrast

    def forward(self, images):
        return 0.5 + self.contrast * (images - 0.5)


# --- networks that have learned nothing ---------------------------------------------------------


def test_a_network_that_returns_one_picture_for_every_image(tmp_path):
    run = read_run(make_run(tmp_path / "run", networks=[Pooling(1), Constant()], history=FLAT))
    text = text_of(run)
    assert "amplified-mse: the network returns nearly the same picture for every image, so" in text
    assert text.count("same picture") == 1
    assert "mean training image" not in text  # one warning about it is enough


@pytest.mark.parametrize(("contrast", "same"), [(0.03, True), (0.3, False)])
def test_how_much_of_an_image_a_network_has_to_show(contrast, same, tmp_path):
    run = read_run(make_run(tmp_path / "run", losses=["mse"], networks=[Faint(contrast)]))
    assert ("same picture" in text_of(run)) == same


def test_one_normal_example_cannot_show_whether_pictures_differ(tmp_path):
    data = make_data(each=1)
    run = read_run(make_run(tmp_path / "run", losses=["mse"], networks=[Constant()], data=data))
    assert "same picture" not in text_of(run)


def test_a_network_that_reconstructs_worse_than_the_mean_image(double):
    text = text_of(set_psnr(double, [21.0, 19.0], 20.0))
    assert "no better than by the mean training image (PSNR 20.0 dB) by l1 (19.0 dB):" in text
    assert "mean training image" not in text_of(set_psnr(double, [21.0, 20.2], 20.0))


def test_a_psnr_that_only_looks_equal_to_that_of_the_mean_image_is_no_better(single):
    assert "(PSNR 20.0 dB) by mse (20.0 dB):" in text_of(set_psnr(single, [20.04], 20.01))


def test_a_psnr_that_is_undefined(double):
    assert "mean training image" not in text_of(set_psnr(double, [None, 19.0], None))
    assert "by l1 (19.0 dB):" in text_of(set_psnr(double, [None, 19.0], 20.0))


# --- image AUROC --------------------------------------------------------------------------------


def test_a_network_that_beats_no_baseline(single):
    text = text_of(set_aurocs(single, [0.9], 0.95, 0.91))
    assert "mse reaches an image AUROC of 0.9000 (95% interval " in text
    assert (
        "It does not beat the mean image (0.9500) or the blurred copy (0.9100), which require no "
        "network at all."
    ) in text


def test_a_network_that_beats_one_baseline_only(single):
    text = text_of(set_aurocs(single, [0.9], 0.95, 0.6))
    assert "It does not beat the mean image (0.9500), which requires no network" in text
    assert "blurred copy" not in text


def test_a_lead_over_a_baseline_too_small_to_print_is_none(single):
    text = text_of(set_aurocs(single, [0.90004], 0.90001, 0.6))
    assert "It is no better than the mean image (0.9000)" in text


def test_a_clear_lead_over_the_baselines_and_an_unclear_one(single):
    text = text_of(set_aurocs(single, [0.99], 0.6, 0.55))
    assert "It beats the baselines, mean image (0.6000) and blurred copy (0.5500). At" in text
    text = text_of(set_aurocs(single, [0.99], 0.97, 0.55))
    assert "blurred copy (0.5500), but the lead over the mean image is smaller than the" in text


def test_guessing_is_called_guessing(single):
    assert "That is no better than guessing." in text_of(set_aurocs(single, [0.6], 0.5, 0.5))
    assert "guessing" not in text_of(set_aurocs(single, [0.99], 0.5, 0.5))


def test_losses_that_look_equal_share_the_lead(double):
    text = text_of(set_aurocs(double, [0.97004, 0.97001], 0.5, 0.5))
    assert "mse and l1 have the same highest image AUROC to four digits, 0.9700" in text
    assert "They beat the baselines" in text


def test_a_loss_that_does_not_lead_and_does_not_beat_a_baseline(double):
    text = text_of(set_aurocs(double, [0.7, 0.9], 0.8, 0.7))
    assert "l1 has the highest image AUROC, 0.9000" in text
    assert "mse (0.7000) does not beat the mean image (0.8000) or the blurred copy (0.7" in text
    assert "l1 (" not in text


def test_how_many_defects_the_threshold_finds(tmp_path):
    scores = [1, 2, 3, 4, 5, 6, 6, 6, 6.5, 7, 1, 1, 6, 8, 9, 0, 0, 0]  # 6 is the threshold
    run = read_run(make_run(tmp_path / "run", losses=["mse"], scores=scores))
    text = text_of(run)
    assert "for a false-positive rate of 5%, mse detects 4 of 12 anomalous images." in text


# --- the training -------------------------------------------------------------------------------


def test_a_loss_that_still_falls(double):
    text = text_of(set_losses(double, falling(0.95, 40), 40 * [0.1]))
    assert (
        "The training loss still falls at the end, per epoch over the last 10 epochs: mse by 5.0%. "
        "Train longer: repeat the command with --resume and --epochs 80."
    ) in text
    assert "rises" not in text


def test_a_loss_that_rises(double):
    text = text_of(set_losses(double, falling(1.03, 40), falling(0.999, 40)))
    assert "rises at the end, per epoch over the last 10 epochs: mse by 3.0%." in text
    assert "still falls" not in text


@pytest.mark.parametrize(
    ("factor", "words"),
    [(0.9905, None), (0.9895, "still falls"), (1.0095, None), (1.0105, "rises at the end")],
)
def test_a_change_of_the_loss_counts_from_1_percent_per_epoch(double, factor, words):
    text = text_of(set_losses(double, falling(factor, 40), 40 * [0.1]))
    assert [each for each in ("still falls", "rises at the end") if each in text] == (
        [words] if words else []
    )


@pytest.mark.parametrize(("epochs", "few"), [(2, True), (11, True), (12, False)])
def test_too_few_epochs_to_tell(single, epochs, few):
    text = text_of(set_losses(single, epochs * [0.1]))
    assert (f"at least 12 epochs to tell whether the training has converged; this run has {epochs}."
            in text) == few  # fmt: skip
    assert ("--epochs" in text) == few
    assert "falls" not in text


# --- the images ---------------------------------------------------------------------------------


def test_too_few_normal_images_for_the_rate(single):
    assert (
        "6 normal images are too few for a false-positive rate of 5%, which requires at least 19: "
        "the threshold is their highest score, and the rate to expect is 14.3%."
    ) in text_of(single)
    single.metrics["config"]["false_positive_rate"] = 1 / 7
    assert "too few" not in text_of(single)
    single.metrics["config"]["false_positive_rate"] = 0.14
    assert "rate of 14%, which requires at least 7:" in text_of(single)


def test_notices_of_the_data_are_repeated(single):
    assert "<li>" in verdict(single)
    single.metrics["data"]["notices"] = ["3 training images are test images, too: <a.png>"]
    assert "<li>Data: 3 training images are test images, too: &lt;a.png&gt;.</li>" in verdict(
        single
    )


def test_nothing_is_listed_if_nothing_is_wrong(tmp_path):
    data = make_data(each=20)
    scores = [*range(20), *range(100, 140)]
    run = read_run(make_run(tmp_path / "run", ["mse"], data, history=FLAT, scores=scores))
    assert "<li>" not in verdict(set_aurocs(set_psnr(run, [25.0], 20.0), [1.0], 0.6, 0.6))


def test_normal_images_alone_cannot_show_how_well_defects_are_detected(tmp_path):
    data = make_data(kinds=[GOOD], each=20)
    text = text_of(read_run(make_run(tmp_path / "run", ["mse"], data, history=FLAT)))
    assert text.startswith(
        "This run cannot tell how well defects are detected: all 20 test images are normal. It "
        "does provide a threshold: expect 4.8% of new normal images, taken under the same "
        "conditions, to exceed it (95% interval 0.1% to 16.8%)."
    )
    assert "AUROC" not in text


def test_anomalous_images_alone_give_no_threshold(tmp_path):
    data = make_data(kinds=["hole"])
    text = text_of(read_run(make_run(tmp_path / "run", ["mse"], data, history=FLAT)))
    assert text.startswith("This run has neither an AUROC nor a threshold: all 6 test images are")
    assert "detects" not in text
