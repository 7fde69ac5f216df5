"""Opt-in tile autotuning."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lamp_kernels import backends
from lamp_kernels.backends.triton import autotune

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_memory(monkeypatch):
    monkeypatch.setattr(autotune, "_quickest", {})


def test_the_quickest_is_found_once_for_each_key(monkeypatch, no_memory):
    times = {"a": 3.0, "b": 1.0, "c": 2.0}
    ran: list[str] = []

    def milliseconds(run):
        run()
        return times[ran[-1]]

    monkeypatch.setattr(autotune, "milliseconds", milliseconds)
    assert autotune.quickest(1, "abc", ran.append) == "b"
    assert autotune.quickest(1, "abc", ran.append) == "b"
    assert ran == ["a", "b", "c"]
    times["c"] = 0.5
    assert autotune.quickest(2, "abc", ran.append) == "c"


def test_nothing_is_measured_while_a_graph_is_captured(monkeypatch, no_memory):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert autotune.quickest(1, "abc", pytest.fail) == "a"
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(autotune, "milliseconds", lambda run: 0.0)
    assert autotune.quickest(1, "cba", pytest.fail) == "c"
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert autotune.quickest(1, "abc", pytest.fail) == "c"


@pytest.mark.parametrize(("value", "asked"), [("1", True), ("0", False), ("", False)])
def test_the_environment_asks_for_it(monkeypatch, value, asked):
    monkeypatch.setattr(autotune, "VALUE", value)
    monkeypatch.setattr(autotune, "INTERPRETED", False)
    assert autotune.wanted() is asked
    assert (f"{autotune.ENVIRONMENT_VARIABLE}={value}" in backends.report()) is (value != "")
    monkeypatch.setattr(autotune, "INTERPRETED", True)
    assert not autotune.wanted()


def test_another_value_is_an_error(monkeypatch):
    monkeypatch.setattr(autotune, "VALUE", "on")
    with pytest.raises(ValueError, match="LAMP_KERNELS_TRITON_AUTOTUNE must be 0 or 1, got 'on'"):
        autotune.wanted()


def test_it_is_read_from_the_environment():
    program = "from lamp_kernels.backends.triton import autotune; print(autotune.VALUE)"
    environment = {**os.environ, autotune.ENVIRONMENT_VARIABLE: "1"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.stdout.strip() == "1", result.stderr


CASES: dict[str, dict[str, Any]] = {
    "SSIM": {"shape": (1, 1, 24, 61), "grad": (True, True)},
    "map": {"shape": (1, 1, 24, 61), "grad": (False, False), "reduction": "none"},
    "terms": {"shape": (1, 1, 24, 61), "terms": {"ssim": 1.0, "l1": 0.5}},
    "pixels": {"shape": (2, 1, 40, 61), "terms": {"mse": 1.0}},
}


@pytest.mark.cpu_only("interprets the kernels on the CPU")
@pytest.mark.parametrize(
    "name",
    [
        "SSIM",
        "map",
        pytest.param("terms", marks=pytest.mark.thorough("the kernel of SSIM with more in it")),
        "pixels",
    ],
)
def test_every_candidate_gives_the_loss_and_the_next_call_measures_nothing(interpret, name):
    import interpreted

    measured, errors = interpret(interpreted.tuned_errors, **CASES[name])
    assert measured >= 3
    assert max(errors) < 1e-5
