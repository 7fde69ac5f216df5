"""The page of a run folder as a whole, made from crops of a real picture."""

from __future__ import annotations

import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from run_files import (
    KINDS,
    LOSSES,
    change_metrics,
    change_scores,
    make_data,
    make_run,
    plain,
    read_report,
)
from uad import evaluation, figures, html
from uad.data import GOOD
from uad.report import text as texts
from uad.report.__main__ import main
from uad.report.run import read_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(folder):
    return read_report(folder)


def test_the_report_says_what_was_run_and_with_which_results(page, folder):
    for word in (*LOSSES, *KINDS[1:], "Crops of a brick wall", "All defects are synthetic."):
        assert word in page.text
    assert "one run with one seed" in page.text
    assert "84,721 parameters" in page.text
    arms = json.loads((folder / "metrics.json").read_text())["arms"]
    for arm in arms.values():
        for name in ("image_auroc", "image_ap", "pixel_auroc", "aupro"):
            assert f" {arm['evaluation'][name]:.4f} " in page.text
        for kind in arm["evaluation"]["per_kind"].values():
            assert f" {kind['image_auroc']:.4f} " in page.text
        assert f" {arm['evaluation']['psnr_normal']:.1f} dB " in page.text
    for cell in ("12.3 ms", "24.6 ms", "25.0%", "12.5%", "on tangent"):
        assert cell in page.text


def test_the_report_is_self_contained(page):
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    css = html.STYLE.read_text()
    assert "@import" not in css
    assert "url(" not in css


def test_its_figures_are_embedded(page):
    assert len(page.files("svg+xml")) == 4  # histograms, ROC curves, losses, tangent
    for content in page.files("svg+xml"):
        assert content.count(b"<path") > 20
    (grid,) = page.files("png")
    assert np.asarray(Image.open(io.BytesIO(grid)).convert("L")).std() > 30


def test_the_picture_grid_is_also_a_separate_file(page, folder):
    with Image.open(folder / "examples.png") as image:
        assert 900 < image.width <= 1400
    assert page.files("png") == [(folder / "examples.png").read_bytes()]
    assert not list(folder.glob("*.tmp"))


def test_the_command_writes_the_same_report_again_and_prints_where_it_is(page, folder, capsys):
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert (folder / "report.html").read_bytes() == before


def test_the_lead_and_its_interval(page):
    assert re.search(
        r"In image AUROC, \S+ leads \S+ by 0\.\d{4} \(-?\d\.\d{4} to -?\d\.\d{4}\)\.",
        page.text,
    )


def compare(folder, scores, kinds):
    """What the report says after the scores of both losses have been replaced."""
    kinds = np.array(kinds)
    for loss, values in scores.items():
        change_scores(folder, loss, values, kinds)
        auroc = evaluation.image_figures(kinds != GOOD, np.asarray(values))["image_auroc"]

        def change(metrics, loss=loss, auroc=auroc):
            metrics["arms"][loss]["evaluation"]["image_auroc"] = auroc

        change_metrics(folder, change)
    return plain(texts.findings(read_run(folder)))


@pytest.mark.parametrize(("shift", "clear"), [(0.0, False), (3.0, True)])
def test_a_lead_counts_where_its_interval_excludes_zero(tmp_path, shift, clear):
    folder = make_run(tmp_path / "run", losses=["mse", "l1"])
    rng = np.random.default_rng(0)
    kinds = np.array([GOOD] * 40 + ["hole"] * 40)
    scores = {
        loss: rng.normal(size=80) + distance * (kinds != GOOD)
        for loss, distance in (("mse", 0.5), ("l1", 0.5 + shift))
    }
    text = compare(folder, scores, kinds)
    assert ("l1 is better than every other loss" in text) == clear
    assert ("do not show which loss is better" in text) != clear
    assert not clear or "l1 leads mse by" in text


def test_differences_too_small_to_print_are_called_equal(tmp_path):
    folder = make_run(tmp_path / "run", losses=["mse", "l1"])
    rng = np.random.default_rng(0)
    kinds = [GOOD] * 200 + ["hole"] * 200
    first = rng.permutation(400).astype(float)
    order = np.argsort(first)
    second = first.copy()
    for low, high in pairwise(order):
        if low < 200 <= high:  # one pair out of 40,000 changes places
            second[low], second[high] = first[high], first[low]
            break
    text = compare(folder, {"mse": first, "l1": second}, kinds)
    assert "mse equals l1 to four digits" in text
    assert "leads" not in text
    assert "-0.0000" not in text
    assert "better than every" not in text


def test_data_without_masks(tmp_path):
    data = make_data(masks="none", channels=3)
    page = read_report(make_run(tmp_path / "run", data=data))
    assert "image AUROC" in page.text
    for absent in ("pixel AUROC", "AUPRO", "ground truth", "Masks:", "no mask"):
        assert absent not in page.text


def test_masks_for_some_images(page, tmp_path):
    partial = read_report(make_run(tmp_path / "run", data=make_data(masks="some")))
    assert "Masks: 6 of 12 anomalous images. Pixel AUROC and AUPRO leave out" in partial.text
    assert "hole, no mask, score" in partial.text
    assert re.search(r"AUPRO: each kind .* hole 3 \d", partial.text)
    assert re.search(r"Image AUROC: each kind .*? hole 6 \d", partial.text)
    assert "Masks:" not in page.text


def test_a_single_loss(tmp_path):
    page = read_report(make_run(tmp_path / "run", losses=["mse"], tangent=0.0))
    for absent in ("is highest", "one seed", "Only the training loss", "amplified loss", "leads"):
        assert absent not in page.text
    assert "No element was on the tangent of the amplification" in page.text
    assert len(page.files("svg+xml")) == 3


def test_anomalous_images_alone(tmp_path):
    page = read_report(make_run(tmp_path / "run", data=make_data(kinds=["hole"])))
    assert "neither an AUROC nor a threshold : all 6 test images are anomalous" in page.text
    for absent in ("image AUROC", "Threshold and mistakes", "promise", "dashed line"):
        assert absent not in page.text
    assert "ROC curves" not in str(page.tags)
    assert "12.3 ms" in page.text
    assert (tmp_path / "run" / "mse" / "scores.csv").read_text().splitlines()[1].endswith(",,")


def test_normal_images_alone(tmp_path):
    data = make_data(kinds=[GOOD], each=30, held_out=20, masks="none")
    page = read_report(make_run(tmp_path / "run", data=data))
    assert "This run cannot tell how well defects are detected : all 30" in page.text
    assert "tested on 30 other normal images. 20 of the normal ones were held out" in page.text
    assert (
        "scores of 30 normal test images (20 of them held out from the training images)"
        in page.text
    )
    for absent in ("image AUROC ↑", "AUPRO", "average precision", "missed", "anomalous image "):
        assert absent not in page.text
    assert "ROC curves" not in str(page.tags)
    for needed in ("test/<kind>/", "ground_truth/<kind>/<stem>_mask.png", "Hanley and McNeil"):
        assert needed in page.text
    for row in ("10 normal, 10 defective ± 0.103", "100 normal, 100 defective ± 0.031"):
        assert row in page.text
    assert "baseline: mean image" in page.text  # PSNR can be compared
    table = page.text[page.text.index("training loss PSNR") : page.text.index("higher is better")]
    assert table.count(" -") == 6  # two baselines without the three figures of a training


def test_no_figure_is_printed_that_is_not_a_number(page, tmp_path):
    good_only = read_report(make_run(tmp_path / "run", data=make_data(kinds=[GOOD])))
    for text in (page.text, good_only.text):
        assert not re.search(r"\b(nan|inf|None)\b", text)


def test_a_run_of_an_older_version(tmp_path):
    folder = make_run(tmp_path / "run")
    for loss in LOSSES:
        path = folder / loss / "evaluation.npz"
        with np.load(path) as file:
            kept = {name: file[name] for name in ("scores", "kinds", "reconstructions", "maps")}
        np.savez(path, **kept)

    def age(metrics):
        del metrics["baselines"]
        for name in ("found", "notices", "held_out"):
            del metrics["data"][name]
        for arm in metrics["arms"].values():
            del arm["evaluation"]["count_masks"]
            for kind in arm["evaluation"]["per_kind"].values():
                del kind["count_masks"]

    change_metrics(folder, age)
    page = read_report(folder)
    assert page.files("jpeg") == []
    for absent in ("baseline", "scores.csv", "lowest scores"):
        assert absent not in page.text
    assert "hole 6 " in page.text
    assert not (folder / "mse" / "scores.csv").exists()


def test_names_are_not_markup(tmp_path):
    evil = '<img src=x onerror="alert(1)">&amp;'
    data = make_data(kinds=[GOOD, "<i>kind"], notices=(evil,), subject=evil)
    folder = make_run(tmp_path / "run", losses=["<b>loss"], data=data)

    def poison(metrics):
        metrics["data"]["title"] = metrics["data"]["note"] = evil
        metrics["config"]["root"] = metrics["environment"]["device"] = evil

    change_metrics(folder, poison)
    page = read_report(folder)
    assert page.text.count(evil) >= 7  # also title, heading, note, command line, settings
    assert "<b>loss" in page.text
    assert "<i>kind" in page.text
    assert not any("onerror" in attributes for _, attributes in page.tags)


def test_a_run_that_is_not_finished_says_so(folder):
    metrics = read_run(folder).metrics
    assert "Not finished" not in texts.summary(metrics)
    metrics["config"]["compare"].append("l1")
    assert "Not finished yet: <b>l1</b>." in texts.summary(metrics)


def test_the_verdict_comes_before_everything_else(page):
    start = page.text.index("image AUROC")
    for word in ("beat", "still falls", "too few"):
        assert start < page.text.index(word) < page.text.index("What was run")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"metric": "mse", "smooth_sigma": 2.0, "pooling": "topk", "topk": 0.01},
            "squared error of its reconstruction, smoothed with a Gaussian of sigma 2 pixels. Its "
            "score is the mean over the worst 1% of the pixels of the map.",
        ),
        (
            {"metric": "ssim", "smooth_sigma": 0.0, "pooling": "topk", "topk": 7},
            "SSIM dissimilarity of its reconstruction. Its score is the mean over the worst 7 "
            "pixels of the map.",
        ),
        (
            {
                "metric": "msgms",
                "mean_filter": 21,
                "smooth_sigma": 2.0,
                "pooling": "max",
                "topk": 1,
            },
            "dissimilarity of gradient magnitudes on four scales of its reconstruction, averaged "
            "over 21x21 pixels and smoothed with a Gaussian of sigma 2 pixels. Its score is the "
            "maximum of the map.",
        ),
        (
            {"metric": "l1", "smooth_sigma": 0.0, "pooling": "max", "topk": 0.01},
            "absolute error of its reconstruction. Its score is the maximum of the map.",
        ),
    ],
)
def test_scoring_in_words(options, sentence):
    assert texts.scoring(options).endswith(sentence)


def test_the_command_repeats_the_run(page):
    assert (
        "python python/train.py --data textures --root 'my pictures' --category brick grass "
        "--fit stretch --compare mse,amplified-mse --amplify-over element --eps 0.01 "
    ) in page.text
    assert "--compile --score-metric mse" in page.text
    assert "--false-positive-rate 0.05 --out runs/again" in page.text
    assert texts.command({"loss": "l1", "nproc_per_node": 2}) == [
        ["torchrun", "--nproc-per-node=2"],
        ["python/train.py"],
        ["--loss", "l1"],
        ["--out", "runs/again"],
    ]


def test_figures_of_short_and_flat_runs():
    # Warnings are errors, so this fails if any figure warns.
    once = {"mse": {"epoch": [1], "loss": [0.5], "tangent_share": [0.0]}}
    flat = np.full(4, 0.25, dtype=np.float32)
    for figure in (
        figures.loss_curves(once),
        figures.tangent_curves(once),
        figures.score_histograms({"mse": flat}, np.array([True, True, False, False]), {}),
        figures.score_histograms({"mse": flat}, np.zeros(4, dtype=bool), {"mse": 0.25}),
        figures.roc_curves({"mse": flat}, np.array([True, True, False, False])),
    ):
        assert len(figures.encode(figure, "svg")) > 5000


def test_the_grid_supports_wide_images_and_blank_maps():
    examples = {
        "originals": np.zeros((2, 3, 16, 40), dtype=np.uint8),
        "kinds": np.array([GOOD, "a defect with a rather long name"]),
    }
    blank: dict[str, np.ndarray] = {
        "reconstructions": np.zeros((2, 3, 16, 40), dtype=np.uint8),
        "maps": np.zeros((2, 16, 40), dtype=np.float32),
    }
    content = figures.encode(figures.example_grid(examples, {"mse": blank}), "png")
    image = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    assert image[:, :4].min() == 255  # the name ends before the border
    assert image.shape[0] < image.shape[1]


def test_the_outline_closes_at_the_border():
    pixels = np.zeros((1, 1, 16, 16), dtype=np.uint8)
    wholly_defective = np.ones((1, 16, 16), dtype=bool)
    examples = {"originals": pixels, "masks": wholly_defective, "kinds": np.array(["dent"])}
    maps = np.zeros((1, 16, 16), dtype=np.float32)
    blank: dict[str, np.ndarray] = {"reconstructions": pixels, "maps": maps}
    content = figures.encode(figures.example_grid(examples, {"mse": blank}), "png")
    red, green, blue = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).T.astype(int)
    assert ((green - red > 150) & (blue - red > 150)).sum() > 300


def test_each_loss_has_a_color_of_its_own():
    from uad.losses import LOSSES as ALL

    colors = {figures.arm_color(loss) for loss in ALL}
    assert len(colors - {figures.arm_color("no loss")}) == len(ALL)


def test_missing_and_damaged_files_are_named(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert "metrics.json: cannot be read" in capsys.readouterr().err
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err

    folder = make_run(tmp_path / "run")
    (folder / "mse" / "evaluation.npz").write_bytes(b"PK\x03\x04")
    assert main([str(folder)]) == 2
    assert "evaluation.npz: cannot be read" in capsys.readouterr().err
    (folder / "mse" / "evaluation.npz").unlink()
    assert main([str(folder)]) == 2
    change_metrics(folder, lambda metrics: metrics["arms"].clear())
    assert main([str(folder)]) == 2
    assert "no loss has finished training yet" in capsys.readouterr().err
