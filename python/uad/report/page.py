"""report.html of a run: a self-contained page, made from the files in the run folder.

`python -m uad.report RUN`, run in the folder `python/`, writes it again.
"""

from __future__ import annotations

from pathlib import Path

from uad import figures
from uad.checkpoint import atomic_write
from uad.html import document
from uad.report.decision import decision
from uad.report.good_only import needed
from uad.report.pictures import landscape, pictures, score_figures, training_figures
from uad.report.run import Run, read_run
from uad.report.scores_csv import SCORES, scores_csv
from uad.report.tables import kind_table, result_table
from uad.report.text import findings, masks_note, settings, summary
from uad.report.verdict import verdict


def write_report(run_folder: Path) -> Path:
    """Write report.html, examples.png and each loss's scores.csv; return the report's path.

    Raises RunFolderError if a file of the run is missing or damaged.
    """
    run = read_run(run_folder)
    write_scores(run, run_folder)
    grid = figures.encode(figures.example_grid(run.examples, run.evaluations), "png")
    with atomic_write(run_folder / "examples.png") as file:
        file.write(grid)
    path = run_folder / "report.html"
    with atomic_write(path) as file:
        file.write(page(run, grid, run_folder).encode())
    return path


def write_scores(run: Run, folder: Path) -> None:
    """Write scores.csv of each loss, except for runs of an older version without file names."""
    for arm, arrays in run.evaluations.items():
        if "files" in arrays:
            files, kinds = arrays["files"].tolist(), arrays["kinds"].tolist()
            text = scores_csv(files, kinds, arrays["scores"], run.thresholds.get(arm))
            with atomic_write(folder / arm / SCORES) as file:
                file.write(text.encode())


def page(run: Run, grid: bytes, folder: Path) -> str:
    """The whole document. grid: the picture grid as a PNG."""
    title = f"Anomaly detection by reconstruction: {run.metrics['data']['title']}"
    by_kind = "".join(
        kind_table(run.arms, run.baselines, *figure)
        for figure in (
            ("image_auroc", "Image AUROC", "count"),
            ("aupro", "AUPRO", "count_masks"),
        )
    )
    sections = {
        "What was run": summary(run.metrics),
        "Results": findings(run) + masks_note(run) + result_table(run.arms, run.baselines),
        "Threshold and mistakes": decision(run),
        "What is needed to measure detection": needed(run),
        "Results by kind of defect": by_kind,
        "Examples": pictures(run, grid),
        "Scores": score_figures(run),
        "Training": training_figures(run.arms),
        "Loss landscape": landscape(folder),
        "How to reproduce this run": settings(run.metrics),
    }
    return document(title, verdict(run), sections)
