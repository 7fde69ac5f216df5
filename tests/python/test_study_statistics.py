"""The statistics of a study and where it reports them: pairs, intervals, tables, pages."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from scipy import stats
from study_lines import SCORE, result
from uad.bootstrap import bootstrap_interval
from uad.cli import study as cli
from uad.landscape import table as landscape
from uad.study.measures import primary
from uad.study.questions import comparisons
from uad.study.results import ResultsFile
from uad.study.sentences import sentences
from uad.study.setting import Arm
from uad.study.statistics import Pair, compare, make_pairs
from uad.study.tables import difference_table, error_table, score_table, stuck_table


@pytest.fixture
def results():
    """Ten classes with three seeds; amplified MSE is about 0.01 better than MSE.

    One run has no partner, and one run diverged.
    """
    rng = np.random.default_rng(0)
    lines = []
    for normal_class in range(10):
        for seed in range(3):
            plain = rng.uniform(0.6, 0.9)
            better = plain + 0.01 + rng.normal(0, 0.003)
            neither = plain + 0.002 * (-1) ** normal_class  # its mean over the classes is 0
            lines.append(result("amplified-mse", normal_class, seed, better))
            lines.append(result("scaled-mse", normal_class, seed, neither))
            lines.append(result("mse", normal_class, seed, plain))
    lines.append(result("amplified-mse", 0, 7, 0.1))
    lines.append({**result("amplified-mse", 1, 8), "failed": "the loss is nan"})
    return lines


def difference(results, after="amplified-mse", before="mse"):
    (group,) = comparisons(results).values()
    (found,) = [c for c in group if (c.before, c.after) == (Arm(before), Arm(after))]
    return found.difference(primary("fashion-mnist"))


# --- statistics ---------------------------------------------------------------------------------


def test_pairs_differ_only_in_the_loss():
    plain = [result("mse", 0, 0, 0.5), result("mse", 0, 1, 0.6), result("mse", 0, 0, 0.7, width=8)]
    amplified = [result("amplified-mse", 0, 1, 0.9, eps=1e-3), result("amplified-mse", 1, 0, 0.1)]
    assert make_pairs(plain, amplified, primary("fashion-mnist")) == [Pair(0, 1, 0.6, 0.9)]


def test_a_run_with_reduced_batches_is_no_partner_of_one_without():
    reduced = result("mse") | {"effective_batch_size": 10}
    amplified = result("amplified-mse")
    assert make_pairs([reduced], [amplified], primary("fashion-mnist")) == []
    amplified["effective_batch_size"] = 10
    assert len(make_pairs([reduced], [amplified], primary("fashion-mnist"))) == 1


def test_the_mean_weights_classes_equally_however_many_seeds_they_have():
    pairs = [Pair(0, seed, 0.0, 1.0) for seed in range(8)] + [Pair(1, 0, 0.0, 0.0)]
    assert compare(pairs).mean == 0.5


def test_seeds_of_the_same_class_are_not_independent_evidence():
    """Repeating each seed a hundred times adds no class, so the interval stays the same."""
    once = [Pair(c, 0, 0.0, float(c)) for c in range(10)]
    often = [Pair(c, seed, 0.0, float(c)) for c in range(10) for seed in range(100)]
    one, other = compare(once), compare(often)
    assert (one.low, one.high) == pytest.approx((other.low, other.high))
    assert one.high - one.low > 3


def test_the_three_textures_are_not_resampled():
    """Differences between textures are not uncertainty; differences between seeds are."""
    pairs = [Pair(name, s, 0.0, shift) for shift, name in enumerate("abc") for s in range(5)]
    found = compare(pairs)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.verdict == "higher"


@pytest.mark.parametrize(
    ("size", "spreads"),
    [(10, [1.0]), (5, [1.0, 1.0, 1.0]), (5, [1.0, 0.2, 0.2])],
    ids=["ten classes", "seeds of three", "unlike seeds of three"],
)
def test_intervals_contain_the_true_mean_as_often_as_promised(size, spreads):
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(300):
        low, high = bootstrap_interval([rng.normal(1.0, spread, size) for spread in spreads])
        inside += low <= 1.0 <= high
    # The standard error of 0.95 over 300 cases is 0.013. A plain percentile interval contains the
    # mean in 0.90 of the first cases; with the degrees of freedom for equal variances, the interval
    # contains it in 0.90 of the last ones.
    assert inside / 300 == pytest.approx(0.95, abs=0.03)


def test_an_interval_is_about_that_of_the_t_distribution():
    values = np.random.default_rng(1).normal(0.3, 1.0, 30)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert bootstrap_interval([values]) == pytest.approx((expected.low, expected.high), abs=0.05)


def test_a_few_pairs_have_no_interval_and_no_verdict():
    few = [Pair(c, 0, 0.0, 1.0) for c in range(6)]
    for pairs in (few, [Pair(c, s, 0.0, 1.0) for c in range(3) for s in range(4)]):
        found = compare(pairs)
        assert found.mean == 1.0
        assert math.isnan(found.low)
        assert found.verdict == "open"
    assert compare([*few, Pair(6, 0, 0.0, 1.0)]).verdict == "higher"


def test_verdicts_follow_the_interval(results):
    better = difference(results)
    assert better.verdict == "higher"
    assert better.mean == pytest.approx(0.01, abs=0.002)
    assert better.low < 0.01 < better.high
    assert better.classes_higher == (10, 10)
    assert len(better.pairs) == 30
    assert difference(results, "scaled-mse", "mse").verdict == "open"
    swapped = [
        {
            **line,
            "loss": {"mse": "amplified-mse", "amplified-mse": "mse"}.get(
                line["loss"], "scaled-mse"
            ),
        }
        for line in results
    ]
    assert difference(swapped).verdict == "lower"


def test_stuck_runs_are_counted_and_left_out(results):
    black = {"mse": 0.2, "l1": 0.3, "ssim": 0.4}
    for line in results:
        if line["loss"] == "mse" and line["seed"] == 0:
            line |= {"error_normal": black, "image_auroc": {SCORE: 0.5}}
    (group,) = comparisons(results).values()
    assert difference(results).mean > 0.05
    learning = group[0].without_stuck(primary("fashion-mnist"))
    assert learning is not None
    assert len(learning.pairs) == 20
    assert learning.mean == pytest.approx(0.01, abs=0.002)
    assert "without stuck runs" in difference_table(group).rows[1][0]
    # One of three seeds is stuck in every class, so the fraction is the same for any classes.
    table = stuck_table(group)
    assert table is not None
    assert table.rows[0] == ["MSE", "10 of 30", "33%", "33% to 33%"]
    assert "Without stuck runs: +0.0" in sentences(group)[0]
    errors = {row[0]: row[1] for row in error_table(group[:1]).rows}
    assert errors["squared error on normal images"].startswith("0.0%")  # not -95% in a third


def test_stuck_runs_are_not_mentioned_if_there_are_none(results):
    ((_, group),) = comparisons(results).items()
    assert stuck_table(group) is None
    assert all(each.without_stuck(primary("fashion-mnist")) is None for each in group)
    assert not any("stuck" in text for text in sentences(group))


# --- tables and pages ---------------------------------------------------------------------------


def test_tables_contain_the_differences(results):
    ((_, group),) = comparisons(results).items()
    table = difference_table(group)
    row = dict(zip(table.heads, table.rows[0], strict=True))
    found = difference(results)
    assert row["A against B"] == "amplified MSE against MSE"
    assert row["A - B"] == f"{found.mean:+.4f}"
    assert row["95% interval"] == f"{found.low:+.4f} to {found.high:+.4f}"
    assert row["classes where A is higher"] == "10 of 10"
    scores = score_table(group[:1])
    assert scores.rows == [
        [f"image AUROC, score: {SCORE}", f"{found.mean:+.4f} ({row['95% interval']})"]
    ]
    errors = {row[0]: row[1] for row in error_table(group[:1]).rows}
    assert errors["squared error on normal images"].startswith("0.0%")
    # In these lines the errors are proportional to the AUROC, which grows by 0.01 from about 0.75.
    assert re.match(r"\+1\.[234]%", errors["absolute error on anomalous images"])
    assert "| amplified MSE against MSE | 30 |" in table.markdown()
    assert "<td>30</td>" in table.html()


def test_publishing_replaces_only_the_marked_part_of_the_page(results, tmp_path):
    path = tmp_path / "study.jsonl"
    with ResultsFile(path) as file:
        for line in results:
            file.append(line)
    assert cli.main(["publish", str(path)]) == 0
    page = tmp_path / "conclusions.md"
    generated = page.read_text()
    found = difference(results)
    said = f"better, {found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f}; 30 pairs"
    assert f"amplified MSE against MSE: {said}" in generated
    assert "1 of them diverged and is left out: fashion-mnist 1 amplified-mse." in generated
    mine = generated.replace("<!-- answer:end -->\n", "<!-- answer:end -->\nBetween.\n")
    mine = f"My own words.\n\n{mine}\nMore of them.\n"
    page.write_text(mine.replace(said, ""))
    assert cli.main(["publish", str(path)]) == 0
    assert page.read_text() == mine
    for name in re.findall(r"\]\((\S+\.png)\)", generated):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    html = (tmp_path / "study.html").read_text()
    assert said in html
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_landscapes_next_to_the_results_are_published_with_them(results, tmp_path):
    path = tmp_path / "study.jsonl"
    with ResultsFile(path) as file:
        for line in results:
            file.append(line)
    slopes = {name: [1.0, 1.2, 0.9, 1.1, 1.0, 1.3, 0.8] for name in landscape.COLUMNS}
    steeper = {name: [2 * value for value in values] for name, values in slopes.items()}
    common = {"loss": "mse", "loss_at_weights": 0.1, "top_curvature": 7.5}
    lines = [
        common | slopes | {"looked_at": "mse"},
        common | steeper | {"looked_at": "amplified-mse"},
    ]
    (tmp_path / landscape.LINES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / landscape.PICTURE).write_bytes(b"\x89PNG")
    assert cli.main(["publish", str(path)]) == 0
    for page in ("conclusions.md", "study.html"):
        text = (tmp_path / page).read_text()
        assert "mse: both around the mse network" in text
        assert "2.00 (2.00 to 2.00)" in text  # with the same directions the ratio does not vary


def test_publishing_without_pairs_is_an_error(tmp_path, capsys):
    path = tmp_path / "study.jsonl"
    with ResultsFile(path) as file:
        file.append(result("mse"))
    assert cli.main(["publish", str(path)]) == 2
    assert "contains no two runs that differ only in the loss" in capsys.readouterr().err
    assert cli.main(["publish", str(tmp_path / "none.jsonl")]) == 2
    assert not (tmp_path / "study.html").exists()


def test_a_page_without_marks_is_not_overwritten(results, tmp_path, capsys):
    path = tmp_path / "study.jsonl"
    with ResultsFile(path) as file:
        for line in results:
            file.append(line)
    for text in ("Mine.", "<!-- study:begin -->\n<!-- study:end -->\n"):
        (tmp_path / "conclusions.md").write_text(text)
        assert cli.main(["publish", str(path)]) == 2
        assert "lacks the marks <!-- answer:begin -->" in capsys.readouterr().err
        assert (tmp_path / "conclusions.md").read_text() == text
