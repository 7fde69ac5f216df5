"""The report of a run folder, made from crops of a real picture and blurring as the network."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as pictures
from torch.nn import functional
from uad import evaluation, figures, html, report
from uad.data import GOOD, AnomalyData, Preparation, to_unit
from uad.options import Scoring

KINDS = (GOOD, "hole", "stain")
LOSSES = ("mse", "amplified-mse")


def make_run(folder, losses=LOSSES, kinds=KINDS, masks=True, channels=1, tangent=0.01):
    """A run folder like those of train.py, with crops of a brick wall and squares in them."""
    rng = np.random.default_rng(0)
    size, names = 32, [kind for kind in kinds for _ in range(6)]
    images, truth = [], []
    for name in names:
        top, left = rng.integers(0, 512 - size, 2)
        image = pictures.brick()[top : top + size, left : left + size].copy()
        mask = np.zeros((size, size), dtype=bool)
        if name != GOOD:
            mask[8:18, 20:32] = True  # up to the border
            image[mask] = image[mask] // 4
        images.append(np.stack([image] * channels))
        truth.append(mask)
    test = torch.from_numpy(np.stack(images))
    data = AnomalyData(
        "textures", "Crops of a brick wall", "All defects are synthetic.", test[:6], test,
        tuple(names), torch.from_numpy(np.stack(truth)) if masks else None,
        Preparation(size, channels),
    )  # fmt: skip

    scoring = Scoring()
    arms = {}
    folder.mkdir()
    examples = evaluation.choose_examples(data.kinds)
    evaluation.save_examples(folder / "examples.npz", data, examples)
    for number, loss in enumerate(losses, start=1):
        original = to_unit(data.test)
        blurred = functional.avg_pool2d(original, 2 * number + 1, 1, number)
        maps = (blurred - original).square().mean(dim=1)
        scores = evaluation.image_scores(maps, scoring)
        (folder / loss).mkdir()
        evaluation.save_evaluation(
            folder / loss / "evaluation.npz", (blurred * 255).byte(), maps, scores, data, examples
        )
        arms[loss] = {
            "evaluation": evaluation.evaluate(maps, scores, torch.tensor([20.0 + number]), data),
            "history": {
                "epoch": [1, 2, 3],
                "loss": [0.1 * number, 0.05, 0.01],
                "tangent_share": [tangent, tangent / 2, 0.0],
            },
            "seconds_per_step": 0.0123 * number,
            "loss_share": 0.25 / number,
            "steps": 12,
            "parameters": 84721,
        }
    metrics = {
        "config": {
            "data": "textures", "root": "my pictures", "category": ["brick", "grass"], "loss": None,
            "compare": list(losses), "amplify_over": "element", "epochs": 3, "compile": True,
            "resume": False, "nproc_per_node": 1, "width": 4, "latent": 2, "seed": 0,
        },
        "environment": {"python": "3.11", "device": "cpu"},
        "data": {
            "name": data.name, "title": data.title, "note": data.note, "train": 1200,
            "test_normal": names.count(GOOD), "test_anomalous": len(names) - names.count(GOOD),
            "size": [channels, size, size], "kinds": {kind: names.count(kind) for kind in kinds},
        },
        "scoring": {"metric": "mse", "smooth_sigma": 2.0, "pooling": "topk", "topk": 0.01},
        "arms": arms,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def change_metrics(folder, change):
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics))


class Reader(HTMLParser):
    """Collects the text and the tags of a page, and checks that each tag is closed."""

    VOID = ("meta", "img", "br", "hr")

    def __init__(self, page):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def files(self, subtype):
        prefix = f"data:image/{subtype};base64,"
        sources = [attrs["src"] for tag, attrs in self.tags if tag == "img"]
        return [
            base64.b64decode(source.removeprefix(prefix), validate=True)
            for source in sources
            if source.startswith(prefix)
        ]


def read_report(folder):
    path = report.write_report(folder)
    assert path == folder / "report.html"
    return Reader(path.read_text(encoding="utf-8"))


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
            assert f" {arm['evaluation'][name]:.3f} " in page.text
        for kind in arm["evaluation"]["per_kind"].values():
            assert f" {kind['image_auroc']:.3f} " in page.text
    for cell in ("21.0 dB", "22.0 dB", "12.3 ms", "24.6 ms", "25.0%", "12.5%", "on tangent"):
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


def test_the_same_run_gives_the_same_report(page, folder):
    before = (folder / "report.html").read_bytes()
    report.write_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_the_lead_and_its_interval(page):
    assert re.search(
        r"Image AUROC is highest with \S+ ?: 0\.\d{3}\. It leads \S+ by 0\.\d{3} "
        r"\(-?\d\.\d{3} to -?\d\.\d{3}\)",
        page.text,
    )


@pytest.mark.parametrize(("shift", "clear"), [(0.0, False), (3.0, True)])
def test_a_lead_counts_where_its_interval_excludes_zero(tmp_path, shift, clear):
    folder = make_run(tmp_path / "run", losses=["mse", "l1"])
    rng = np.random.default_rng(0)
    kinds = np.array([GOOD] * 40 + ["hole"] * 40)
    metrics = json.loads((folder / "metrics.json").read_text())
    for loss, distance in (("mse", 0.5), ("l1", 0.5 + shift)):
        path = folder / loss / "evaluation.npz"
        arrays = dict(np.load(path))
        scores = rng.normal(size=80) + distance * (kinds != GOOD)
        np.savez(path, **arrays | {"scores": scores.astype(np.float32), "kinds": kinds})
        auroc = evaluation.image_figures(kinds != GOOD, scores)["image_auroc"]
        metrics["arms"][loss]["evaluation"]["image_auroc"] = auroc
    (folder / "metrics.json").write_text(json.dumps(metrics))
    text = report.findings(report.read_run(folder))
    assert ("better than all of them" in text) == clear
    assert ("do not show which loss is better" in text) != clear
    assert not clear or "highest with <b>l1</b>" in text


def test_data_without_masks(tmp_path):
    page = read_report(make_run(tmp_path / "run", masks=False, channels=3))
    assert "image AUROC" in page.text
    for absent in ("pixel AUROC", "AUPRO", "ground truth"):
        assert absent not in page.text


def test_a_single_loss(tmp_path):
    page = read_report(make_run(tmp_path / "run", losses=["mse"], tangent=0.0))
    for absent in ("is highest", "one seed", "Only the training loss", "amplified loss"):
        assert absent not in page.text
    assert "No element was on the tangent of the amplification" in page.text
    assert len(page.files("svg+xml")) == 3


@pytest.mark.parametrize("kind", [GOOD, "hole"])
def test_test_images_of_a_single_class(kind, tmp_path):
    page = read_report(make_run(tmp_path / "run", kinds=[kind]))
    assert "image AUROC" not in page.text
    assert "ROC curves" not in str(page.tags)
    assert "12.3 ms" in page.text


def test_names_are_not_markup(tmp_path):
    evil = '<img src=x onerror="alert(1)">&amp;'
    folder = make_run(tmp_path / "run", losses=["<b>loss"], kinds=[GOOD, "<i>kind"])

    def poison(metrics):
        metrics["data"]["title"] = metrics["data"]["note"] = evil
        metrics["config"]["root"] = metrics["environment"]["device"] = evil

    change_metrics(folder, poison)
    page = read_report(folder)
    assert page.text.count(evil) >= 5  # title, heading, note, command line, settings
    assert "<b>loss" in page.text
    assert "<i>kind" in page.text
    assert not any("onerror" in attributes for _, attributes in page.tags)


def test_a_run_that_is_not_finished_says_so(tmp_path):
    folder = make_run(tmp_path / "run")
    change_metrics(folder, lambda metrics: metrics["config"]["compare"].append("l1"))
    assert "Not finished yet: l1 ." in read_report(folder).text


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
            {"metric": "l1", "smooth_sigma": 0.0, "pooling": "max", "topk": 0.01},
            "absolute error of its reconstruction. Its score is the maximum of the map.",
        ),
    ],
)
def test_scoring_in_words(options, sentence):
    assert report.scoring(options).endswith(sentence)


def test_the_command_repeats_the_run(page):
    assert (
        "python python/train.py --data textures --root 'my pictures' --category brick grass "
        "--compare mse,amplified-mse --amplify-over element --epochs 3 --compile "
        "--width 4 --latent 2 --seed 0 --out runs/again"
    ) in page.text
    assert report.command({"loss": "l1", "nproc_per_node": 2}) == [
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
        figures.score_histograms({"mse": flat}, np.array([True, True, False, False])),
        figures.score_histograms({"mse": flat}, np.ones(4, dtype=bool)),
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
    assert report.main([str(tmp_path / "none")]) == 2
    assert "metrics.json: cannot be read" in capsys.readouterr().err
    assert report.main([]) == 2
    assert "usage" in capsys.readouterr().err

    folder = make_run(tmp_path / "run")
    (folder / "mse" / "evaluation.npz").write_bytes(b"PK\x03\x04")
    assert report.main([str(folder)]) == 2
    assert "evaluation.npz: cannot be read" in capsys.readouterr().err
    (folder / "mse" / "evaluation.npz").unlink()
    assert report.main([str(folder)]) == 2
    change_metrics(folder, lambda metrics: metrics["arms"].clear())
    assert report.main([str(folder)]) == 2
    assert "no loss has finished training yet" in capsys.readouterr().err


def test_the_command_prints_where_the_report_is(folder, capsys):
    assert report.main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
