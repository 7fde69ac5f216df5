"""docs/deployment.md: every command and program in it runs, with the scores of the detector."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from uad.cli import export, score
from uad.detector import load_detector
from uad.exporting import metadata

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "deployment.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]
FROM_PYTHON, WITH_ONNX, WITH_TORCH = [text for kind, text in BLOCKS if kind == "python"]

WITHOUT = """
import runpy, sys
for name in {absent}:
    sys.modules[name] = None  # importing it raises
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0])
"""


@pytest.fixture(scope="module")
def place(trained_run, image_root, tmp_path_factory):
    """A folder with what the page names: runs/bottle and photos."""
    folder = tmp_path_factory.mktemp("deployment")
    shutil.copytree(trained_run, folder / "runs" / "bottle")
    (folder / "photos").mkdir()
    for kind in ("good", "block"):
        for path in (image_root / "test" / kind).iterdir():
            number = int(path.stem) + (0 if kind == "good" else 4)
            shutil.copy(path, folder / "photos" / f"{number:03}.png")
    return folder


def photos(place):
    return sorted((place / "photos").iterdir())


def command(place, monkeypatch, program):
    """Run each command of the page that starts this program."""
    monkeypatch.chdir(place)
    chosen = [line for line in COMMANDS if f"python/{program.PROGRAM}" in line]
    for line in chosen:
        interpreter, path, *arguments = shlex.split(line)
        assert interpreter == ".venv/bin/python"
        assert (ROOT / path).is_file()
        if "onnx" in arguments and importlib.util.find_spec("onnxscript") is None:
            print("skipped, because onnxscript is not installed:", line)
            continue
        assert program.main([*arguments, *(["--overwrite"] if "--out" in arguments else [])]) == 0
    return len(chosen)


def test_the_score_command_runs(place, monkeypatch):
    assert command(place, monkeypatch, score) == 1
    found = {path.name for path in (place / "scores").glob("[!.]*")}
    assert found == {"scores.csv", "report.html", "overlays", "score-state.json"}


def test_the_python_program_prints_every_decision(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    exec(compile(FROM_PYTHON, "deployment.md", "exec"), {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _, _ in lines] == [path.name for path in photos(place)]
    assert [decision for _, _, decision in lines] == ["False"] * 4 + ["True"] * 4


@pytest.mark.parametrize(
    ("source", "file", "absent"),
    [
        (WITH_ONNX, "bottle.onnx", ("lamp_kernels", "uad", "torch")),
        (WITH_TORCH, "bottle.pt2", ("lamp_kernels", "uad")),
    ],
    ids=["onnx", "torch"],
)
def test_the_exported_file_decides_alone(place, monkeypatch, source, file, absent):
    if "torch" in absent:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(
                name, reason=f"{name} is not installed; requirements-dev.txt has it"
            )
    assert len([line for line in source.splitlines() if line and "import " not in line]) <= 10
    if not (place / file).exists():
        assert command(place, monkeypatch, export) == 2
    program = place / f"score_{Path(file).suffix[1:]}.py"
    program.write_text(source)
    detector = load_detector(place / "runs" / "bottle")
    defects_only = "torch" not in absent  # each start of PyTorch takes seconds
    deep = place / "deep.png"
    Image.fromarray(np.full((32, 32), 4000, np.uint16)).save(deep)
    for path in photos(place)[-1:] if defects_only else (photos(place)[0], photos(place)[-1]):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT.format(absent=absent), program, file, path],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        printed, decision = done.stdout.split()
        (expected,) = detector.score([path])
        assert float(printed) == pytest.approx(expected.score, rel=1e-4)
        assert decision == ("normal" if path == photos(place)[0] else "anomalous")
    if not defects_only:
        refused = subprocess.run(
            [sys.executable, program, file, deep],
            cwd=place, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert refused.returncode == 1
        assert refused.stderr.startswith("only for 8-bit gray or RGB images")


def test_the_page_names_what_the_file_holds(place):
    named = re.findall(r"^\| (`.*?) \|", TEXT, flags=re.MULTILINE)
    keys = {key for cell in named for key in re.findall(r"`(\w+)`", cell)}
    assert keys == set(metadata(load_detector(place / "runs" / "bottle")))


def test_links_and_files_exist():
    headings = re.findall(r"^##* (.*)$", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.M)
    anchors = {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}
    links = re.findall(r"\]\(#([^)]*)\)", TEXT)
    assert len(links) == 4
    assert set(links) <= anchors
    files = set(re.findall(r"python/[\w/]*\w\.py", TEXT))
    assert len(files) >= 4
    for name in files:
        assert (ROOT / name).is_file(), name
