"""Plots of the results: time against size, speedup, memory."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot is imported: draws without a display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suite.contestants import FLOOR, MSSSIM, OURS
from suite.figures import three
from suite.measure import Row
from suite.results import Results, contestants, find, shapes
from suite.speed import BOTH, FORWARD

BASELINE = MSSSIM
OUR_COLOR, PEER_COLOR, FLOOR_COLOR, PALE = "#c2410c", "#475569", "#94a3b8", "#fdba74"
LINES = ("#c2410c", "#f59e0b", "#1d4ed8", "#64748b", "#15803d")


def draw(results: Results, folder: Path) -> list[tuple[str, str]]:
    """Write the plots to `folder`; return the file name and a description of each."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, function, description in (
        ("bench-size.png", _size, "Time per element against image side"),
        ("bench-speedup.png", _speedup, f"Speed relative to {BASELINE} by shape"),
        ("bench-memory.png", _memory, "Memory beyond the images, bytes per element"),
    ):
        if function(results, folder / name):
            drawn.append((name, description))
    return drawn


def _size(results: Results, path: Path) -> bool:
    rows = [row for row in results["sweep"] if "p50" in row]
    if not rows:
        return False
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    for name, color, marker in zip(names, LINES, "osD^v", strict=False):
        mine = [row for row in rows if row["contestant"] == name]
        sides = [row["shape"][-1] for row in mine]
        each = {q: [1e9 * row[q] / row["elements"] for row in mine] for q in ("p10", "p50", "p90")}
        axes.plot(sides, each["p50"], marker=marker, color=color, label=name, linewidth=1.8)
        axes.fill_between(sides, each["p10"], each["p90"], color=color, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sides = sorted({row["shape"][-1] for row in rows})
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("image side, pixels (one single-channel image)")
    axes.set_ylabel("forward + backward, ns per pixel")
    axes.grid(True, which="major", color="#e2e8f0")
    axes.set_title("Median; shaded band: p10 to p90", fontsize=10, loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    _save(figure, path)
    return True


def _speedup(results: Results, path: Path) -> bool:
    every = shapes(results)
    if all("p50" not in _timed(results, BASELINE, shape) for shape in every):
        return False
    names = [name for name in contestants(results) if name != FLOOR][::-1]
    count = len(every)
    columns = min(2, count)
    lines = -(-count // columns)
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(5.4 * columns, lines * (1.0 + 0.27 * len(names))),
        sharey=True,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    for axes, shape in zip(grid.flat, every, strict=False):
        base = _timed(results, BASELINE, shape).get("p50")
        values = []
        for name in names:
            median = _timed(results, name, shape).get("p50")
            values.append(base / median if base and median else None)
        _bars(axes, names, values, suffix="x")
        axes.axvline(1.0, color="#0f172a", linewidth=0.8)
        axes.set_title(str(tuple(shape)), fontsize=10)
    figure.supxlabel(f"speedup over {BASELINE}, forward + backward (log scale)", fontsize=10)
    _save(figure, path)
    return True


def _memory(results: Results, path: Path) -> bool:
    rows = [row for row in results["memory"] if "bytes_per_element" in row]
    if not rows:
        return False
    names = list(dict.fromkeys(row["contestant"] for row in results["memory"]))[::-1]
    figure, grid = plt.subplots(
        1,
        2,
        figsize=(10.8, 1.1 + 0.27 * len(names)),
        sharey=True,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, which in zip(grid.flat, (BOTH, FORWARD), strict=True):
        values = [
            find(rows, contestant=name, **{"pass": which}).get("bytes_per_element")
            for name in names
        ]
        _bars(axes, names, values, linear=True)
        axes.set_title(which, fontsize=10)
    figure.supxlabel("peak memory beyond the images, bytes per element", fontsize=10)
    _save(figure, path)
    return True


def _bars(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[float | None],
    *,
    suffix: str = "",
    linear: bool = False,
) -> None:
    """Horizontal bars, each labeled with its value."""
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        if value is None:
            text, end = "not measured", 0.0 if linear else 1.0
        else:
            axes.barh(
                place,
                value - (0 if linear else 1),
                left=0 if linear else 1,
                color=_color(name),
                height=0.7,
            )
            text, end = (
                f"{three(value)}{suffix}" if value >= 0.1 else "0",
                value if linear else max(value, 1.0),
            )
        axes.annotate(
            text,
            (end, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color="#334155",
        )
    if not linear:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.margins(x=0.16)
    axes.grid(True, axis="x", color="#e2e8f0")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _color(name: str) -> str:
    if name.startswith(f"{OURS} native"):
        return OUR_COLOR
    if name.startswith(OURS):
        return PALE
    return FLOOR_COLOR if name == FLOOR else PEER_COLOR


def _timed(results: Results, name: str, shape: Sequence[int]) -> Row:
    return find(results["speed"], contestant=name, shape=shape, **{"pass": BOTH})


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})  # no version in the file
    plt.close(figure)
