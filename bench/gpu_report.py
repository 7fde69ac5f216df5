"""Write the README's GPU table and plot from the results of a gpu_check run.

python bench/gpu_report.py --results bench/results

A run's results.json is committed as bench/results/<card>.json; the newest one is used.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from checkout import ROOT
from suite.cases import shape_name
from suite.speed import BOTH
from suite.table import update_readme

BEGIN, END = "<!-- gpu:begin -->", "<!-- gpu:end -->"
Report = dict[str, Any]


def newest(folder: Path) -> Report | None:
    """The newest run of gpu_check with timings, or None; skips results of other benchmarks."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    runs = [run for run in found if "phases" in run and _timed(run)]
    return max(runs, key=lambda run: run["date"], default=None)


def markdown(run: Report, plots: list[str]) -> str:
    """The README's block: card, date and versions, then one row per contestant."""
    about = run["environment"]
    card = about["devices"][0]["name"] if about["devices"] else "no GPU"
    smi = (about.get("nvidia_smi") or "").splitlines()
    driver = smi[1].split(",")[2].strip() if len(smi) > 1 else "unknown"
    packages = about["packages"]
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in _timed(run)))
    head = ["", "border", *map(shape_name, shapes)]
    lines = [
        f"{card}, {run['date'][:10]}, driver {driver}, CUDA {about.get('cuda_of_torch')}, torch "
        f"{packages.get('torch')}, triton {packages.get('triton')}. Medians in ms of {BOTH}, "
        f"float32, interleaved; {run['timing']['how']}. In brackets: forward only.",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    for name in dict.fromkeys(row["contestant"] for row in _timed(run)):
        rows = [row for row in _timed(run) if row["contestant"] == name]
        cells = [name, rows[0]["border"], *(_cell(rows, shape) for shape in shapes)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *(f"\n![Time by shape]({plot})" for plot in plots)])


def _timed(run: Report) -> list[Report]:
    """The measured float32 rows with a cold cache."""
    rows = run.get("timing", {}).get("speed", [])
    return [
        row
        for row in rows
        if "p50" in row and row["dtype"] == "float32" and row.get("cache") != "warm"
    ]


def _cell(rows: list[Report], shape: tuple[int, ...]) -> str:
    found = {row["pass"]: f"{1e3 * row['p50']:.3f}" for row in rows if tuple(row["shape"]) == shape}
    alone = f" ({found['forward']})" if "forward" in found else ""
    return found.get(BOTH, "-") + alone


def draw(run: Report, path: Path) -> None:
    """Draw bars of forward + backward for each shape."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in _timed(run) if row["pass"] == BOTH]
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in rows))
    figure, all_axes = plt.subplots(
        1, len(shapes), figsize=(4.2 * len(shapes), 4.0), layout="constrained", squeeze=False
    )
    for axes, shape in zip(all_axes[0], shapes, strict=True):
        bars = [row for row in rows if tuple(row["shape"]) == shape]
        axes.barh([row["contestant"] for row in bars], [1e3 * row["p50"] for row in bars])
        axes.invert_yaxis()
        axes.set(title=shape_name(shape), xlabel="ms", xscale="log")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Update the README and the plot, or report that there are no results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with README.md and docs/")
    arguments = parser.parse_args()
    run = newest(arguments.results)
    if run is None:
        print("no GPU results: README.md unchanged")
        return
    block = markdown(run, ["docs/gpu-speed.png"])
    changed = update_readme(arguments.root / "README.md", block, BEGIN, END)
    draw(run, arguments.root / "docs" / "gpu-speed.png")
    print(f"README.md {'changed' if changed else 'unchanged'}, docs/gpu-speed.png drawn")


if __name__ == "__main__":
    main()
