"""python/grids: the documentation matches the code, and the example for a folder runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from factory import make
from uad.cli import study as cli
from uad.data import DataError
from uad.study.grid import NOTE, GridError, read_grid
from uad.study.images import categories
from uad.study.results import read_results
from uad.study.spec import FIELDS, REQUIRED

GRIDS = Path(__file__).resolve().parents[2] / "python" / "grids"
CATEGORIES = ["bracket", "ring"]
TINY = {"size": 32, "epochs": 1, "batch_size": 8, "width": 4, "latent": 2, "seed": 0}


def documented():
    """Key and default of each row of the table in README.md."""
    text = (GRIDS / "README.md").read_text()
    return dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", text, re.MULTILINE))


def test_the_documented_keys_and_defaults_are_those_of_the_code():
    rows = documented()
    assert list(rows) == [*FIELDS, NOTE]
    assert [name for name, default in rows.items() if default == "required"] == list(REQUIRED)
    for name, field in FIELDS.items():
        if name not in REQUIRED:
            assert json.loads(rows[name].strip("`")) == field.default


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.json")), ids=lambda path: path.name)
def test_every_grid_file_is_valid_and_listed_in_the_documentation(path):
    assert read_grid(path)
    assert f"| `{path.name}` |" in (GRIDS / "README.md").read_text()


def test_the_table_of_large_errors_has_the_grids_of_the_makefile_and_their_runs():
    text = (GRIDS / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)\.json` \| ([\d,]+) \| (\d+) \|$", text, re.MULTILINE)
    (listed,) = re.findall(r"^LARGE := (.*)$", (GRIDS.parents[1] / "Makefile").read_text(), re.M)
    assert [name for name, *_ in rows] == listed.split()
    numbers = [[int(cell.replace(",", "")) for cell in cells] for _, *cells in rows]
    for (name, *_), (runs, *_) in zip(rows, numbers, strict=True):
        assert runs == len(read_grid(GRIDS / f"{name}.json"))
    total = re.search(r"^\| all \| ([\d,]+) \| (\d+) \|$", text, re.MULTILINE)
    assert total is not None
    sums = [sum(column) for column in zip(*numbers, strict=True)]
    assert [int(cell.replace(",", "")) for cell in total.groups()] == sums


def test_the_duration_of_make_study_is_the_same_everywhere():
    repository = GRIDS.parents[1]
    for name in ("README.md", "Makefile", "python/grids/README.md", "python/grids/small.json"):
        text = " ".join((repository / name).read_text().split())
        assert "half a minute" in text, name


def test_the_example_for_a_folder_runs_and_can_be_published(tmp_path, capsys):
    root = tmp_path / "parts"
    for seed, category in enumerate(CATEGORIES):
        made = make(root / category, train=8, good=2, defects=2, side=40, bits=12, seed=seed)
        (made / "ground_truth/dent/001_mask.png").unlink()
    (block,) = json.loads((GRIDS / "folder.json").read_text())["blocks"]
    assert block["normal_class"] == CATEGORIES
    grid = tmp_path / "grid.json"
    small = block | TINY | {"loss": ["mse", "amplified-mse"]}
    grid.write_text(json.dumps({"blocks": [small]}))
    results = tmp_path / "study.jsonl"
    assert cli.main(["run", str(grid), "--root", str(root), "--results", str(results)]) == 0
    found = capsys.readouterr().out
    assert "bracket: 8 normal for training, 2 normal and 4 defective" in found
    assert "12-bit" in found
    lines = read_results(results)
    assert [line["bit_depth"] for line in lines] == [12] * 4
    assert all(0 < line["pixel_auroc"]["mse top 1 %"] <= 1 for line in lines)
    assert cli.main(["publish", str(results)]) == 0
    page = (tmp_path / "conclusions.md").read_text()
    assert "Each category counts as a class." in page
    assert "interval in brackets" not in page
    assert "nan" not in re.findall(r"\w+", page.lower())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (11, "11 would drop 9 of the 20 training images from every epoch: using 10"),
        (32, "32 is larger than the training set of 20 images: using 20"),
    ],
)
def test_a_batch_size_that_would_waste_images_is_reduced_and_reported(
    asked, said, tmp_path, capsys
):
    root, grid, results = tmp_path / "parts", tmp_path / "grid.json", tmp_path / "study.jsonl"
    make(root / "ring", train=20, good=2, defects=1, side=40)
    small = TINY | {"dataset": "folder", "normal_class": "ring", "loss": ["mse", "amplified-mse"]}
    grid.write_text(json.dumps({"blocks": [small | {"batch_size": [asked, 16]}]}))
    assert cli.main(["run", str(grid), "--root", str(root), "--results", str(results)]) == 0
    assert capsys.readouterr().err.count(f"ring: batch_size {said}\n") == 1
    used = int(said.split()[-1])
    lines = read_results(results)
    assert [(line["batch_size"], line.get("effective_batch_size")) for line in lines] == [
        (asked, used), (asked, used), (16, None), (16, None),
    ]  # fmt: skip
    grid.write_text(json.dumps({"blocks": [small | {"batch_size": used}]}))
    assert cli.main(["run", str(grid), "--root", str(root), "--results", str(results)]) == 0
    same = read_results(results)[4:]
    assert [line["error_normal"] for line in same] == [line["error_normal"] for line in lines[:2]]
    assert cli.main(["publish", str(results)]) == 0
    page = (tmp_path / "conclusions.md").read_text()
    assert f"batch size {asked} (reduced to {used} where more than 25% of the" in page
    assert page.count("reduced to") == 1


def test_a_category_that_the_folder_lacks_is_an_error_with_the_closest_one(tmp_path):
    grid = tmp_path / "grid.json"
    block = {"dataset": "folder", "normal_class": "rings", "loss": "mse", "seed": 0}
    grid.write_text(json.dumps({"blocks": [block]}))
    message = "block 1: normal_class 'rings' is not a category .* did you mean 'ring'"
    with pytest.raises(GridError, match=message):
        read_grid(grid, CATEGORIES)


def test_folders_that_are_hidden_from_training_are_not_categories_of_a_study(tmp_path):
    for name in ("ring", "bracket", "__MACOSX", ".trash"):
        (tmp_path / name / "train" / "good").mkdir(parents=True)
    assert categories(tmp_path) == CATEGORIES
    with pytest.raises(DataError, match="no such folder"):
        categories(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learningrate": 0.1}, "unknown key 'learningrate'; did you mean 'learning_rate'?"),
        ({"Seed": 1}, "unknown key 'Seed'; did you mean 'seed'?"),
        ({"loss": "amplified_mse"}, "got 'amplified_mse'; did you mean 'amplified-mse'?"),
        ({"dataset": "Texture"}, "got 'Texture'; did you mean 'textures'?"),
        ({"normal_class": "bricks"}, "got 'bricks'; did you mean 'brick'?"),
        ({"fit": "pad"}, "fit is only for dataset 'folder'"),
        ({"bit_depth": 7}, "bit_depth must be an integer from 8 to 16"),
    ],
)
def test_an_error_names_the_key_and_the_closest_valid_one(tmp_path, change, message):
    grid = tmp_path / "grid.json"
    block = {"dataset": "textures", "normal_class": "brick", "loss": "mse", "seed": 0} | change
    grid.write_text(json.dumps({"blocks": [block]}))
    with pytest.raises(GridError) as raised:
        read_grid(grid)
    assert message in str(raised.value)
