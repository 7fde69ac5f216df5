"""The benchmark suite: the clock, the contestants' definitions, and a quick run."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from suite import contestants as module
from suite.cases import OPERATOR_CASES, nearly_equal_pair, textured_pair
from suite.contestants import COMPILED, CONTESTANTS, select
from suite.errors import errors
from suite.features import FEATURES, holes, rectangle
from suite.figures import three
from suite.measure import Entry, interleave, quantiles

RUN = Path(__file__).resolve().parents[2] / "bench" / "run.py"
KEYS = {
    "schema", "date", "size", "machine", "versions", "skipped", "peak", "speed", "features",
    "sweep", "equal_work", "threads", "training_step", "memory", "errors", "roofline",
}  # fmt: skip


def test_contestants_take_turns():
    turns: list[int] = []
    entries = [Entry({"n": n}, partial(turns.append, n)) for n in range(3)]
    for entry in entries:
        entry.prepare = lambda: None
    rows = interleave(entries, budget=0.0, min_rounds=3, max_rounds=9)
    assert [row["n"] for row in rows] == [0, 1, 2]
    assert all(row["rounds"] == 3 and row["p10"] <= row["p50"] <= row["p90"] for row in rows)
    blocks = [n for n, before in zip(turns, [None, *turns], strict=False) if n != before]
    assert blocks == [
        0,
        1,
        2,
        0,
        1,
        2,
        1,
        2,
        0,
        2,
        0,
        1,
    ]  # warm-ups are consecutive


def test_a_failing_contestant_does_not_end_the_run():
    def fail():
        raise RuntimeError("no kernel\nsecond line")

    entries = [Entry({"n": 0}, fail), Entry({"n": 1}, lambda: None)]
    rows = interleave(entries, budget=0.0, min_rounds=3, max_rounds=3)
    assert rows[0]["skipped"] == "RuntimeError: no kernel"
    assert "p50" in rows[1]


def test_a_slow_contestant_is_skipped():
    entry = Entry({}, lambda: sum(range(100_000)))
    (row,) = interleave([entry], budget=1.0, min_rounds=3, max_rounds=3, limit=1e-9)
    assert "the limit is" in row["skipped"]


def test_quantiles_and_digits():
    assert quantiles([1.0, 2.0, 3.0]) == {"p10": 1.2, "p50": 2.0, "p90": 2.8}
    assert [three(v) for v in (0, 0.012345, 1.2345, 123.45, 12345.6)] == [
        "0", "0.0123", "1.23", "123", "12346",
    ]  # fmt: skip


def test_names_of_cases_and_contestants_are_unique():
    assert len({case.id for case in OPERATOR_CASES}) == len(OPERATOR_CASES)
    assert len({contestant.name for contestant in CONTESTANTS}) == len(CONTESTANTS)


def test_image_pairs_are_reproducible():
    for make in (textured_pair, nearly_equal_pair):
        first, second = make((1, 1, 16, 16)), make((1, 1, 16, 16))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_missing_packages_are_reported(monkeypatch):
    def missing(name):
        raise module.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.importlib.metadata, "version", missing)
    taken, skipped = select(["kornia", "lamp_kernels reference"], compiled=False)
    assert [contestant.name for contestant in taken] == [
        "lamp_kernels reference",
        "lamp_kernels reference, valid, not amplified",
    ]
    reasons = {row["contestant"]: row["reason"] for row in skipped}
    assert reasons["kornia"] == "kornia is not installed"
    assert "too long" in reasons[COMPILED]


def test_every_contestant_matches_its_exact_definition():
    taken, _ = select(compiled=False)
    for row in errors(taken):
        assert "skipped" not in row, row
        if row["pair"] == "textured":
            assert row["loss_error"] < 1e-5, row
            assert row["gradient_error"] < 1e-5, row
        elif row["contestant"].startswith("lamp_kernels"):
            assert row["gradient_error"] < 1e-5, row


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_contestant_of_a_feature_matches_its_exact_definition(feature):
    taken, skipped = select(among=feature.contestants)
    assert all("is not installed" in row["reason"] for row in skipped), skipped
    for row in errors(taken, feature.small):
        assert "skipped" not in row, row
        if row["pair"] == "textured":
            assert row["loss_error"] < 1e-5, row
            assert row["gradient_error"] < 1e-5, row


def test_masks_hide_what_their_names_say():
    shape = (2, 3, 64, 48)
    for mask, share in ((rectangle, 0.25), (holes, 0.1)):
        hidden = (~mask(shape)).double().mean((1, 2, 3))
        assert mask(shape).shape == (2, 1, 64, 48)
        assert (hidden - share).abs().max() < 0.02


@pytest.mark.timeout(600)  # the machine may be busy with other tests
def test_quick_run(tmp_path):
    out = tmp_path / "results.json"
    command = [sys.executable, RUN, "--quick", "--threads", "1", "--out", out]
    command += ["--plots", tmp_path / "plots", "--only", "lamp_kernels", "pytorch-msssim", "torch"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    results = json.loads(out.read_text(encoding="utf-8"))
    assert set(results) == KEYS
    assert all("p50" in row for row in results["speed"] + results["sweep"] + results["threads"])
    assert all("p50" in row for row in results["equal_work"])
    assert {row["feature"] for row in results["features"] if "p50" in row} == {
        feature.name for feature in FEATURES
    }
    assert results["machine"]["threads"] == 1
    assert results["versions"]["torch"] in done.stdout
    assert len(list((tmp_path / "plots").glob("*.png"))) == 3


def test_invalid_arguments_are_errors():
    for arguments in (["--threads", "0"], ["--only", "nobody"]):
        done = subprocess.run(
            [sys.executable, RUN, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert arguments[0] in done.stderr
