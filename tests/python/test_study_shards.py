"""A study that several processes share, and results files that are published together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from study_lines import result
from uad.cli import study as cli
from uad.study.grid import read_grid
from uad.study.results import ResultsFile, read_results, spec_of
from uad.study.shard import Shard

PROGRAM = Path(__file__).resolve().parents[2] / "python" / "study.py"
BLOCK = {
    "dataset": "textures", "normal_class": ["brick", "gravel"], "seed": 0, "epochs": 1,
    "size": 32, "width": 4, "latent": 2, "loss": ["mse", "amplified-mse"],
}  # fmt: skip


def write_lines(path, lines):
    with ResultsFile(path) as file:
        for line in lines:
            file.append(line)
    return str(path)


def test_two_processes_share_a_study_and_publish_takes_both_files(tmp_path, capsys):
    grid, results = tmp_path / "grid.json", tmp_path / "study.jsonl"
    grid.write_text(json.dumps({"blocks": [BLOCK]}))
    command = [sys.executable, str(PROGRAM), "run", str(grid), "--results", str(results)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shards = [
        subprocess.Popen([*command, "--shard", f"{index}/2"], env=environment) for index in (1, 2)
    ]
    assert [shard.wait(timeout=120) for shard in shards] == [0, 0]
    paths = [tmp_path / f"study.{index}-of-2.jsonl" for index in (1, 2)]
    made = [spec_of(line) for path in paths for line in read_results(path)]
    assert len(made) == 4
    assert {spec.key for spec in made} == {spec.key for spec in read_grid(grid)}
    assert not results.exists()
    assert cli.main(["publish", *map(str, paths)]) == 0
    assert "not given" not in capsys.readouterr().err
    page = (tmp_path / "conclusions.md").read_text()
    assert "`study.1-of-2.jsonl, study.2-of-2.jsonl`" in page
    assert "4 runs" in page
    assert (tmp_path / "study.html").exists()


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_shards_contain_every_run_once(count):
    runs = [spec_of(result("mse", seed=seed)) for seed in range(10)]
    parts = [Shard(index, count).of(runs) for index in range(1, count + 1)]
    assert sorted(spec.seed for part in parts for spec in part) == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_an_impossible_shard_is_an_error(text, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "grid.json", "--results", str(tmp_path / "a.jsonl"), "--shard", text])
    assert ended.value.code == 2
    assert f"must be I/N with I from 1 to N, such as 1/4, got '{text}'" in capsys.readouterr().err


def test_a_part_that_is_not_published_is_reported(tmp_path, capsys):
    lines = [result(loss) for loss in ("mse", "amplified-mse")]
    path = write_lines(tmp_path / "study.2-of-3.jsonl", lines)
    assert cli.main(["publish", path]) == 0
    said = capsys.readouterr().err
    assert said.count("not given") == 2
    assert "study.1-of-3.jsonl" in said
    assert "study.3-of-3.jsonl" in said


def test_a_run_in_two_files_counts_once_and_must_agree(tmp_path, capsys):
    lines = [result(loss) for loss in ("mse", "amplified-mse")]
    one = write_lines(tmp_path / "one.jsonl", lines)
    other = write_lines(tmp_path / "other.jsonl", [lines[0] | {"seconds": 9.0, "torch": "2.9"}])
    assert cli.main(["publish", one, other]) == 0
    assert "2 runs, " in (tmp_path / "conclusions.md").read_text()
    third = write_lines(tmp_path / "third.jsonl", [result("mse", auroc=0.5)])
    assert cli.main(["publish", one, third]) == 2
    said = capsys.readouterr().err
    assert "one.jsonl, line 1 and " in said
    assert "the same run with different image_auroc" in said
