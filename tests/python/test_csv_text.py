"""Tables as CSV: they come back as they were, and no cell is a formula."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from uad.csv_text import csv_text
from uad.report.scores_csv import scores_csv
from uad.threshold import choose_threshold


def read(text):
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_that_would_be_a_formula_gets_an_apostrophe(start):
    formula = f'{start}HYPERLINK("http://x","y")'
    ((cell, other),) = read(csv_text(["file", "kind"], [[formula, "dent"]]))[1:]
    assert cell == f"'{formula}"
    assert cell[1:] == formula
    assert other == "dent"


@pytest.mark.parametrize("name", ["a,b.png", 'say "x".png', "two\nlines.png", "ü/é.png", "a=b", ""])
def test_other_text_comes_back_as_it_was(name):
    assert read(csv_text(["file", "kind"], [[name, "dent"]])) == [["file", "kind"], [name, "dent"]]


def test_numbers_stay_numbers():
    assert csv_text(["a", "b"], [[-1.5, 2], [1e-7, 0]]) == "a,b\n-1.5,2\n1e-07,0\n"


def test_the_scores_in_a_file_give_the_decisions_in_it():
    rng = np.random.default_rng(0)
    kinds = 40 * ["good"] + 40 * ["dent"]
    scores = rng.random(80, dtype=np.float32)
    scores[:2] = np.sort(scores[:40])[-2]  # two are equal to the threshold
    threshold = choose_threshold(scores[:40], 0.05)
    files = [f"{kind}/{index}.png" for index, kind in enumerate(kinds)]
    head, *rows = read(scores_csv(files, kinds, scores, threshold))
    assert head == ["file", "kind", "score", "threshold", "decision"]
    assert sorted(row[0] for row in rows) == sorted(files)
    read_scores = [np.float32(row[2]) for row in rows]
    assert read_scores == sorted(scores, reverse=True)
    for (file, kind, _, limit, decision), score in zip(rows, read_scores, strict=True):
        index = files.index(file)
        assert (kind, score) == (kinds[index], scores[index])
        assert decision == ("anomalous" if score > np.float32(limit) else "normal")
    assert {decision for *_, decision in rows} == {"anomalous", "normal"}


def test_scores_without_a_threshold():
    text = scores_csv(["=1.png"], ["dent"], np.array([0.25], np.float32), None)
    assert text == "file,kind,score,threshold,decision\n'=1.png,dent,0.25,,\n"
