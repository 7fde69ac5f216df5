"""The table of a study that says for each metric and setting whether to amplify."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_lines import result
from uad.cli import study as cli
from uad.study.answer import answer
from uad.study.questions import comparisons
from uad.study.results import ResultsFile, merge_results, read_results
from uad.study.switching import (
    AUTHOR,
    HARM,
    HEADS,
    OFF,
    ON,
    ON_IF_STUCK,
    ON_UNLESS_LONGER,
    UNKNOWN,
    switching_table,
)

RESULTS = Path(__file__).resolve().parents[2] / "python" / "results" / "study.jsonl"
LARGE = [RESULTS.with_stem(name) for name in ("mnist", "inpainting", "gradients", "long")]
BLACK = {"mse": 0.2, "l1": 0.3, "ssim": 0.4}


def lines(gain, *, metric="mse", classes=10, control=None, stuck=0):
    """Runs of a plain and an amplified loss, which differ by about `gain`, and of the control.

    control: gain of the control over the plain loss. stuck: classes whose plain run learned
    nothing, and in which the difference is large.
    """
    found = []
    for number in range(classes):
        noise = 0.002 * (number % 3 - 1)
        plain = result(metric, number, auroc=0.7)
        if number < stuck:
            plain = result(metric, number, auroc=0.4) | {"error_normal": BLACK}
        amplified = result(f"amplified-{metric}", number, auroc=0.7 + gain + noise)
        found += [plain, amplified]
        if control is not None:
            found.append(result(f"scaled-{metric}", number, auroc=0.7 + control - noise))
        # Most runs of the class learn; otherwise half of them would set the usual error.
        found += [result(other, number) for other in ("ssim", "scaled-ssim")]
    return found


@pytest.mark.parametrize(
    ("made", "advice"),
    [
        (lines(0.05), ON),
        (lines(0.05, control=0.01), ON),
        (lines(0.05, control=0.05), ON_UNLESS_LONGER),
        (lines(0.0, stuck=4), ON_IF_STUCK),
        (lines(0.05, stuck=3), ON),
        (lines(0.05, stuck=10), ON_IF_STUCK),
        (lines(0.0), OFF),
        (lines(-0.05), HARM),
    ],
    ids=["gain", "over control", "control", "stuck", "stuck and gain", "all stuck", "none", "harm"],
)
def test_the_advice_follows_from_the_intervals(made, advice):
    table = switching_table(comparisons(made))
    assert table is not None
    (row,) = table.rows
    assert dict(zip(HEADS, row, strict=True))["advice"] == advice


def test_rows_are_ordered_by_metric_and_name_their_settings():
    made = [
        line | {"epochs": epochs}
        for epochs in (5, 20)
        for metric in ("mse", "l1")
        for line in lines(0.05, metric=metric)
        if "ssim" not in line["loss"]
    ]
    table = switching_table(comparisons(made))
    assert table is not None
    assert [row[:2] for row in table.rows] == [
        [metric, f"Fashion-MNIST, 16-channel code, Adam, epochs {epochs}"]
        for metric in ("MSE", "L1")
        for epochs in (5, 20)
    ]
    assert table.caption.endswith(AUTHOR)


def test_too_few_pairs_give_no_advice():
    made = [line for line in lines(0.05, metric="l1") if "ssim" not in line["loss"]]
    few = [line for line in lines(0.05, classes=3) if "ssim" not in line["loss"]]
    table = switching_table(comparisons(few + made))
    assert table is not None
    assert [row[-1] for row in table.rows] == [UNKNOWN, ON]
    assert switching_table(comparisons(few)) is None  # the page begins with what is missing


def test_without_an_amplified_loss_there_is_no_table(tmp_path):
    with ResultsFile(tmp_path / "study.jsonl") as file:
        for line in lines(0.0):
            if line["loss"] in ("ssim", "scaled-ssim"):
                file.append(line)
    assert cli.main(["publish", str(tmp_path / "study.jsonl")]) == 0
    assert "switch amplification on?" not in (tmp_path / "conclusions.md").read_text()


def test_the_published_results_give_a_row_for_every_metric():
    table = switching_table(comparisons(read_results(RESULTS)))
    assert table is not None
    assert {row[0] for row in table.rows} >= {"MSE", "L1", "SSIM"}
    (l1,) = (row for row in table.rows if row[:2] == ["L1", "Fashion-MNIST, 4-channel code, Adam"])
    assert l1[2:4] == ["+0.0566", "+0.0023 to +0.1318"]
    assert l1[-1] == ON_IF_STUCK
    for page in ("conclusions.md", "study.html"):
        assert "Should you switch amplification on? One row" in (RESULTS.parent / page).read_text()


def test_the_published_page_has_the_answer_that_its_results_give():
    groups = comparisons(merge_results([RESULTS, *LARGE]))
    table = switching_table(groups)
    assert table is not None
    page = RESULTS.with_name("conclusions.md").read_text()
    block = page.partition("<!-- answer:begin -->\n")[2].partition("<!-- answer:end -->")[0]
    assert block == f"{answer(groups).markdown()}\n{table.markdown()}"
