"""Tables, plots and the README's block, from results like the committed ones."""

import subprocess
import sys
from pathlib import Path

import pytest
from packages import optional
from suite import results as files
from suite.table import BEGIN, END, markdown, text, update_readme

matplotlib_image = optional("matplotlib.image")

RUN = Path(__file__).resolve().parents[2] / "bench" / "run.py"


@pytest.fixture
def draw():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from suite.plots import draw

    return draw


def test_results_survive_a_round_trip_through_the_file(made_up, tmp_path):
    path = tmp_path / "folder" / "results.json"
    files.write(made_up, path)
    assert files.read(path) == made_up


def test_another_schema_is_rejected(made_up, tmp_path):
    files.write({**made_up, "schema": 0}, tmp_path / "old.json")
    with pytest.raises(ValueError, match="got schema 0"):
        files.read(tmp_path / "old.json")


def test_newest_uses_the_recorded_date(made_up, tmp_path):
    files.write({**made_up, "date": "2026-02-01T00:00:00+00:00"}, tmp_path / "a.json")
    files.write(made_up, tmp_path / "b.json")
    assert files.newest(tmp_path)["date"].startswith("2026-02")
    with pytest.raises(FileNotFoundError, match="has no results"):
        files.newest(tmp_path / "nothing")


def test_text_reports_skipped_contestants(made_up):
    found = text(made_up)
    assert "piq is not installed" in found
    assert "the limit is 20 s" in found
    assert "40 % of arithmetic" in found


def test_markdown_is_a_table(made_up):
    blocks = markdown(made_up).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    speed, _ = tables
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    assert any(line.startswith("| pytorch-msssim 1.0 | valid | 160 | 160 |") for line in speed)
    assert any(line.startswith("| kornia 1.0 | valid | - |") for line in speed)


def test_features_are_relative_to_the_first_contestant(made_up):
    block = markdown(made_up)
    assert "| GMS | (8, 3, 256, 256) | lamp_kernels native | 8.00 | 8.00 |" in block
    assert "|  |  | pytorch-msssim | 160 (20.0) | 160 (20.0) |" in block
    assert "|  |  | piq | - | - |" in block
    del made_up["features"]  # as in results of before they were measured
    assert "GMS" not in markdown(made_up)
    assert "GMS" not in text(made_up)


def test_speedups_have_a_column_per_machine_and_shape(made_up):
    faster = {**made_up, "machine": {**made_up["machine"], "instructions": "AVX512"}}
    lines = markdown(made_up, machines=[made_up, faster]).splitlines()
    (head,) = (line for line in lines if line.startswith("| over |"))
    assert head.count("(8, 3, 256, 256)") == 2
    assert "with AVX2" in head
    assert "with AVX512" in head
    ours = [line for line in lines if line.startswith("| pytorch-msssim |")]
    assert ours == ["| pytorch-msssim | 20.0 | 20.0 | 20.0 | 20.0 |"]
    assert "| kornia | - | - | - | - |" in lines


def test_plots_are_images(draw, made_up, tmp_path):
    drawn = draw(made_up, tmp_path)
    assert len(drawn) == 3
    for name, description in drawn:
        assert description
        height, width = matplotlib_image.imread(tmp_path / name).shape[:2]
        assert min(height, width) > 150


def test_empty_plots_are_not_drawn(draw, made_up, tmp_path):
    assert not draw({**made_up, "speed": [], "sweep": [], "memory": []}, tmp_path)


def test_readme_block_is_replaced_once(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    assert update_readme(path, "new\n")
    assert path.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert not update_readme(path, "new\n")


@pytest.mark.parametrize(
    "content", ["no markers", f"{BEGIN}", f"{END}{BEGIN}", f"{BEGIN * 2}{END}"]
)
def test_readme_without_its_markers_is_an_error(tmp_path, content):
    path = tmp_path / "README.md"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="bench:"):
        update_readme(path, "new")
    assert path.read_text(encoding="utf-8") == content


def test_command_writes_readme_and_plots(made_up, tmp_path):
    files.write(made_up, tmp_path / "results" / "a.json")
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    command = [sys.executable, RUN, "--readme", tmp_path / "results", "--root", tmp_path]
    for expected in ("README.md changed", "README.md unchanged"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert expected in done.stdout
    assert "docs/bench-speedup.png" in readme.read_text(encoding="utf-8")
    assert len(list((tmp_path / "docs").glob("bench-*.png"))) == 3
