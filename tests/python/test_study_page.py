"""The statements on a study's page besides the differences themselves."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from study_lines import result
from uad.cli import study as cli
from uad.study.answer import answer
from uad.study.measures import primary
from uad.study.questions import comparisons, contrasts
from uad.study.results import ResultsFile
from uad.study.stuck import SAME_TASK, mark_stuck
from uad.study.tables import difference_table, stuck_table

BLACK = {"mse": 0.2, "l1": 0.3, "ssim": 0.4}


def stuck(line):
    return line | {"error_normal": BLACK}


AUROC = {"mse top 1 %": 0.8}


def publish(path, lines):
    """Publish a results file with these lines; return the text of conclusions.md."""
    with ResultsFile(path) as file:
        for line in lines:
            file.append(line)
    assert cli.main(["publish", str(path)]) == 0
    return (path.parent / "conclusions.md").read_text()


def numbers(interval):
    return [float(value) for value in interval.replace("%", "").split(" to ")]


# --- stuck runs ---------------------------------------------------------------------------------


def test_the_fraction_of_stuck_runs_and_its_difference_resample_whole_classes():
    """All five seeds are stuck in four of ten classes: four pieces of evidence, not twenty."""
    lines = []
    for normal_class in range(10):
        for seed in range(5):
            plain = result("l1", normal_class, seed)
            lines.append(stuck(plain) if normal_class < 4 else plain)
            lines.append(result("amplified-l1", normal_class, seed))
            lines += [result(loss, normal_class, seed) for loss in ("mse", "amplified-mse")]
    (group,) = comparisons(lines).values()
    table = stuck_table(group)
    assert table is not None
    (loss, count, share, interval), (name, pairs, change, its_interval) = table.rows
    assert (loss, count, share) == ("L1", "20 of 50", "40%")
    low, high = numbers(interval)
    assert low <= 10  # for 50 independent runs it would be 26 to 55%
    assert high >= 70
    assert (name, pairs, change) == ("amplified L1 minus L1", "50 pairs", "-40%")
    assert numbers(its_interval) == [-high, -low]


@pytest.mark.parametrize(
    ("name", "values"),
    [("optimizer", ("adam", "sgd")), ("epochs", (1, 9)), ("size", (32, 64)), ("width", (4, 16))],
)
def test_runs_are_stuck_relative_to_runs_of_the_same_setting(name, values):
    """The usual error after one epoch says nothing about the usual error after nine."""
    assert name in SAME_TASK
    poor, good = values
    lines = [stuck(result("mse", 0, seed, **{name: poor})) for seed in range(3)]
    lines += [result("mse", 0, seed, **{name: good}) for seed in range(9)]
    assert not np.any([line["stuck"] for line in mark_stuck(lines)])


def test_a_run_worse_than_the_mean_image_is_stuck_even_if_most_runs_are():
    lines = [stuck(result("l1", 0, seed)) | {"error_mean_image": 0.05} for seed in range(5)]
    lines += [result("amplified-l1", 0, seed) | {"error_mean_image": 0.05} for seed in range(4)]
    marks = [(line["loss"], line["stuck"]) for line in mark_stuck(lines)]
    assert marks == [("l1", True)] * 5 + [("amplified-l1", False)] * 4


# --- names of settings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["width", "epochs", "batch_size", "size", "latent", "optimizer", "learning_rate"]
)
def test_settings_that_differ_in_anything_have_different_names(name, tmp_path):
    others: dict[str, list[Any]] = {"optimizer": ["adam", "sgd"], "learning_rate": [0.3, 1.0]}
    values = others.get(name, [16, 64])
    lines = [
        result(loss, normal_class, auroc=0.8 + 0.01 * place, **{name: value})
        for place, value in enumerate(values)
        for normal_class in range(2)
        for loss in ("mse", "amplified-mse")
    ]
    page = publish(tmp_path / "study.jsonl", lines)
    settings = list(comparisons(lines))
    assert len({setting.slug for setting in settings}) == len(set(map(str, settings))) == 2
    for setting in settings:
        assert f"## {setting}\n" in page
        assert f"study-{setting.slug}.png" in page
        assert (tmp_path / f"study-{setting.slug}.png").exists()


def test_names_are_short_where_nothing_else_differs():
    lines = [result(loss, epochs=5) for loss in ("mse", "amplified-mse")]
    lines += [
        line | {"dataset": "textures", "normal_class": "brick", "epochs": 8, "image_auroc": AUROC}
        for line in lines
    ]
    assert [str(setting) for setting in comparisons(lines)] == [
        "Fashion-MNIST, 16-channel code, Adam", "Textures, 16-channel code, Adam",
    ]  # fmt: skip


# --- identical runs ------------------------------------------------------------------------------


def test_runs_that_agree_to_the_last_digit_are_called_identical(tmp_path):
    lines = []
    for normal_class in range(8):
        auroc = 0.7 + 0.01 * normal_class
        lines += [
            result("mse", normal_class),
            result("amplified-mse", normal_class, auroc=auroc),
            result("amplified-mse", normal_class, auroc=auroc, eps=1e-3),
            result("amplified-mse", normal_class, auroc=auroc, eps=1e-1)
            | {"error_normal": {"mse": 0.01, "l1": 0.0501, "ssim": 0.1}},
        ]
    page = publish(tmp_path / "study.jsonl", lines)
    same = "identical runs, since no element reached the tangent"
    assert f"- amplified MSE (eps 0.001) against amplified MSE: {same} (8 pairs)." in page
    assert f"| 0.0000 | {same} |" in page
    assert same in (tmp_path / "study.html").read_text()
    # Runs with the same AUROC need not be identical.
    assert "- amplified MSE (eps 0.1) against amplified MSE: no difference shown, 0.0000" in page
    assert page.count(same) == 2


# --- capacity ------------------------------------------------------------------------------------


def test_a_wide_code_is_compared_with_a_narrow_one_by_differences_of_differences(tmp_path):
    """Amplification gains 0.01 more with the wide code, whatever the AUROC of each run."""
    rng = np.random.default_rng(0)
    lines = []
    for normal_class in ("brick", "grass", "gravel"):
        for seed in range(5):
            for latent, gain in ((4, 0.02), (64, 0.03)):
                plain = rng.uniform(0.6, 0.9)
                for loss, auroc in (("mse", plain), ("amplified-mse", plain + gain)):
                    line = result(loss, seed=seed, latent=latent)
                    line |= {"dataset": "textures", "normal_class": normal_class}
                    lines.append(line | {"image_auroc": {"mse top 1 %": auroc}})
    (contrast,) = contrasts(comparisons(lines))
    found = contrast.difference(primary("textures"))
    assert found is not None
    assert len(found.pairs) == 15
    assert (found.mean, found.low, found.high) == pytest.approx((0.01,) * 3)
    page = publish(tmp_path / "study.jsonl", lines)
    for text in (page, (tmp_path / "study.html").read_text()):
        assert "amplified MSE against MSE, 64 minus 4 channels" in text
        assert "does more, +0.0100 (+0.0100 to +0.0100; 15 pairs)" in text
    trapped = [stuck(line) if line["seed"] == 0 and line["latent"] == 4 else line for line in lines]
    (contrast,) = contrasts(comparisons(trapped))
    learning = contrast.without_stuck(primary("textures"))
    assert learning is not None
    assert len(learning.pairs) == 12


def test_settings_that_differ_in_more_than_the_code_are_not_contrasted():
    lines = [
        result(loss, latent=latent, epochs=latent)
        for latent in (4, 64)
        for loss in ("mse", "amplified-mse")
    ]
    assert contrasts(comparisons(lines)) == []


# --- the table of differences --------------------------------------------------------------------


def test_means_weight_classes_equally_as_their_difference_does():
    lines = []
    for normal_class, seeds, auroc in ((0, 8, 0.5), (1, 1, 0.9)):
        for seed in range(seeds):
            lines.append(result("mse", normal_class, seed, auroc))
            lines.append(result("amplified-mse", normal_class, seed, auroc + 0.02 * normal_class))
    (group,) = comparisons(lines).values()
    table = difference_table(group)
    row = dict(zip(table.heads, table.rows[0], strict=True))
    assert row["B: mean (sd)"] == "0.7000 (0.133)"
    assert row["A: mean (sd)"].startswith("0.7100 ")
    assert row["A - B"] == "+0.0100"


def test_the_limits_of_the_control_are_stated_where_it_is_compared(tmp_path):
    limits = "only part of the effect of a larger learning rate"
    lines = [result(loss) for loss in ("mse", "amplified-mse")]
    assert limits not in " ".join(publish(tmp_path / "without/study.jsonl", lines).split())
    lines.append(result("scaled-mse"))
    assert limits in " ".join(publish(tmp_path / "with/study.jsonl", lines).split())


@pytest.mark.parametrize("loss", ["mse", "amplified-mse"])
def test_a_difference_that_rounds_to_zero_has_no_sign(loss, tmp_path):
    tiny = 1e-9
    lines = [
        result(each, normal_class, seed, 0.8 + (each == loss) * tiny * (normal_class + seed))
        for each in ("mse", "amplified-mse")
        for normal_class in range(7)
        for seed in range(3)
    ]
    page = publish(tmp_path / "study.jsonl", lines)
    for text in (page, (tmp_path / "study.html").read_text()):
        assert "0.0000 (0.0000 to 0.0000" in text
        assert "0.0% (0.0% to 0.0%)" in text
        assert not re.search(r"[+-]0\.0*(?![0-9])", re.sub(r"data:[^\"]*", "", text))


# --- the answer ----------------------------------------------------------------------------------


def gains(mse, ssim, seeds=5, category=("bracket", "ring")):
    """Lines of two categories; amplification changes image AUROC by these means."""
    noise = np.random.default_rng(0).normal(0, 0.001, (2, 2, seeds))
    return [
        result(f"{prefix}{metric}", seed=seed)
        | {"dataset": "folder", "normal_class": name}
        | {"image_auroc": {"mse top 1 %": 0.8 + bool(prefix) * (gain + noise[i, j, seed])}}
        for prefix in ("", "amplified-")
        for i, (metric, gain) in enumerate((("mse", mse), ("ssim", ssim)))
        for j, name in enumerate(category)
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (gains(0, 0), "bracket and ring? These runs give no reason to: in all 2 comparisons"),
        (gains(0.02, 0), "bracket and ring? Yes, with this loss: - MSE: better, +0.020"),
        (gains(0.02, 0.03), "bracket and ring? Yes, with these losses: - MSE: better, +0.020"),
        (gains(0, -0.02), "bracket and ring? No: - SSIM: worse, -0.020"),
        (gains(0.02, -0.02), "bracket and ring? It depends: - MSE: better, +0.020"),
        (gains(0.02, 0.02, seeds=2), "bracket and ring? Not known yet: with so few runs, chance"),
        ([result("mse"), result("amplified-mse")], "for these images? These runs give no reason"),
        ([result("mse"), result("scaled-mse")], "These runs cannot tell whether amplification"),
    ],
)
def test_the_pages_begin_with_whether_to_switch_amplification_on(lines, said, tmp_path):
    page = publish(tmp_path / "study.jsonl", lines)
    first = " ".join(page.partition("answer:begin -->")[2].split())
    assert first.removeprefix("Should you switch amplification on for ").startswith(
        said.removeprefix("for ")
    )
    body = (tmp_path / "study.html").read_text().partition("</h1>")[2]
    text = " ".join(re.sub(r"<[^>]+>", " ", body.replace("<li>", "- ")).split())
    assert text.removeprefix("Should you switch amplification on for ").startswith(
        said.removeprefix("for ")
    )


def test_the_answer_counts_what_it_does_not_list_and_explains_the_figure(tmp_path):
    page = " ".join(publish(tmp_path / "study.jsonl", gains(0.02, 0)).split())
    assert "In 1 other comparison, no difference is shown. Before you rely on a gain, " in page
    assert "probability that a defective image scores higher than a good one" in page
    assert "these networks reach 0.80 to 0.82." in page
    assert "not which parts happened to be photographed for the test" in page


def test_the_answer_of_many_comparisons_says_how_many_miss_zero_by_chance():
    said = "Even if no loss differed, about 1 of 20 such intervals would miss 0."
    lines = [line | {"epochs": 5 + number} for number in range(10) for line in gains(0.02, 0)]
    assert said in answer(comparisons(lines)).more
    assert "Even if no loss differed" not in answer(comparisons(gains(0.02, 0))).more


def test_the_answer_names_the_options_of_amplification_if_no_run_has_the_defaults(tmp_path):
    lines = [
        line | {"amplify_over": "image" if line["loss"].startswith("amplified") else "element"}
        for line in gains(0.02, 0)
    ]
    page = publish(tmp_path / "study.jsonl", lines)
    assert "Yes, with this loss:\n\n- MSE (per image): better, +0.020" in page


def test_a_gain_that_comes_from_stuck_runs_says_so(tmp_path):
    lines = gains(0.02, 0)
    trapped = [
        stuck(line) | {"image_auroc": {"mse top 1 %": 0.5}}
        if line["loss"] == "mse" and line["seed"] == 0
        else line
        for line in lines
    ]
    (group,) = comparisons(trapped).values()
    assert stuck_table(group) is not None
    page = " ".join(publish(tmp_path / "study.jsonl", trapped).split())
    assert re.search(r"MSE: better, \+0\.08.*; without runs that learned nothing, \+0\.02", page)


def test_pages_say_where_every_pair_has_a_stuck_run(tmp_path):
    lines = []
    for normal_class in range(10):
        lines.append(stuck(result("l1", normal_class, auroc=0.5)))
        lines += [result(loss, normal_class) for loss in ("amplified-l1", "mse", "amplified-mse")]
    page = publish(tmp_path / "study.jsonl", lines)
    assert "(95% interval +0.3000 to +0.3000); every pair has a run that learned nothing." in page
    assert "| +0.3000 to +0.3000 | no pair left | on if trainings get stuck" in page
    assert "higher in 10 of 10 classes). Every pair has a stuck run." in page
    (errors,) = re.findall(r"^\| squared error on normal images \| (.*) \|$", page, re.MULTILINE)
    assert errors.split(" | ")[1] == "-"


# --- small studies -------------------------------------------------------------------------------


def words(text):
    return re.findall(r"[a-z]+", re.sub(r"data:[^\"]*", "", text).lower())


def without_masks(line):
    return line | {"dataset": "folder", "normal_class": "ring", "image_auroc": AUROC}


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("change", [dict, without_masks])
def test_one_seed_of_two_losses_has_no_intervals_and_no_nan(tmp_path, change, shift):
    lines = [change(result(loss)) for loss in ("mse", "amplified-mse")]
    lines[1] |= {"error_normal": lines[0]["error_normal"] | {"mse": 0.02 * shift + 0.01}}
    page = publish(tmp_path / "study.jsonl", lines)
    for text in (page, (tmp_path / "study.html").read_text()):
        assert "nan" not in words(text)
        assert "+/-" not in text
        assert "with its interval" not in text
        assert "95% interval in brackets" not in text
    assert "| 95% interval |" not in page
    assert ("identical runs" in page) == ("| remark |" in page) == (shift == 0)
    assert "pixel" not in page
    assert "These pairs are too few for 95% intervals" in " ".join(page.split())
    assert page.count("too few") == 1
    assert "Each comparison has a single pair of runs." in " ".join(page.split())


def test_intervals_are_explained_as_they_were_computed(tmp_path):
    """Two textures with seven seeds: the seeds are resampled, not the classes."""
    lines = [
        result(loss, seed=seed, auroc=0.7 + 0.01 * seed + gain)
        | {"dataset": "textures", "normal_class": texture}
        for loss, gain in (("mse", 0), ("amplified-mse", 0.01))
        for texture in ("brick", "gravel")
        for seed in range(7)
    ]
    lines = [
        line | {"image_auroc": {"mse top 1 %": line["image_auroc"]["mse mean"]}} for line in lines
    ]
    page = " ".join(publish(tmp_path / "study.jsonl", lines).split())
    assert "It resamples the seeds within each class" in page
    assert "whole classes" not in page
    assert "Each texture counts as a class." in page


@pytest.mark.parametrize(
    ("lines", "advice"),
    [
        ([], "it has no finished run yet"),
        ([result("mse")], "its only loss is mse; add amplified-mse"),
        (
            [result("mse"), result("amplified-mse", seed=1)],
            "give the losses to be compared the same",
        ),
    ],
)
def test_results_that_allow_no_comparison_say_what_to_add(tmp_path, capsys, lines, advice):
    path = tmp_path / "study.jsonl"
    with ResultsFile(path) as file:
        for line in lines:
            file.append(line)
    assert cli.main(["publish", str(path)]) == 2
    said = capsys.readouterr().err
    assert advice in said
    assert "nan" not in words(said)
    assert [each.name for each in tmp_path.iterdir()] == ["study.jsonl"]
