"""The list of mutations; `make mutate` runs them."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
MUTATIONS = json.loads((HERE / "mutations.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m["name"])
def test_the_replaced_text_occurs_once(mutation):
    text = (HERE.parents[1] / mutation["file"]).read_text(encoding="utf-8")
    assert text.count(mutation["text"]) == 1
