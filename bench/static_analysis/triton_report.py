"""Renders the figures of the Triton kernels as tables."""

from collections import Counter
from typing import Any

from static_analysis.tables import Table

Row = dict[str, Any]

# Suffix of a kernel's name: field. Rows of before there were masks lack the last one.
MORE = {"everything": "everything", "map": "writes_map", "masked": "masked"}


def tables(results: Row) -> list[Table]:
    """All tables of the Triton kernels."""
    return [_registers(results), _loops(results), _predictions(results)]


def _registers(results: Row) -> Table:
    rows = results["variants"]
    targets = list(dict.fromkeys(row["target"] for row in rows))
    spilled = sum(row["spilled"] for row in rows)
    most = max(row["shared_memory"] for row in rows)
    table = Table(
        "Triton: registers and warps",
        "Registers per lane / warps (AMD: wavefronts) resident on one multiprocessor; on AMD, "
        f"accumulation registers are included. Spills: {spilled} bytes in {len(rows)} kernels. "
        f"Shared memory: at most {most} bytes, for the sums. `everything`: with a weight, both "
        "pointwise terms, and strided columns.",
        ["kernel, type, window, gradients, border", *targets],
    )
    names = list(dict.fromkeys(_name(row) for row in rows))
    for name in names:
        found = {row["target"]: row for row in rows if _name(row) == name}
        table.rows.append(
            [name, *(f"{found[t]['registers']} / {found[t]['warps']}" for t in targets)]
        )
    return table


def _name(row: Row) -> str:
    more = [name for name in MORE if row.get(MORE[name])]
    if not row["kernel"].startswith("ssim"):
        return ", ".join([row["kernel"], row["type"], *more])
    window = 2 * row["radius"] + 1
    parts = [row["kernel"], row["type"], str(window), str(row["gradients"]), row["border"]]
    return ", ".join([*parts, *more])


def _loops(results: Row) -> Table:
    table = Table(
        "Triton: instructions per row",
        "The loop over rows: float32, window 11, one gradient, border reflect. `position`: per "
        "window position. `element`: the same times the overhead of band seams and of lanes "
        "without a column, in the tiles of (1, 3, 1080, 1920). `multiply-adds`: FFMA + FADD + "
        "FMUL.",
        ["", "LDG", "STG", "FFMA", "FADD, FMUL", "integer, IMAD", "all", "multiply-adds"],
    )
    for row in results["loops"]:
        name = f"{row['target']}, {row['kernel']}"
        table.rows.append([f"{name}, position", *_counts(row["position"])])
        tile = f"{row['block']} x {row['band_height']}: x {row['factor']:.2f}"
        table.rows.append([f"element ({tile})", *_counts(row["element"])])
    return table


def _counts(row: Row) -> list[str]:
    integer = row["integer"] + row["imad"]
    names = ("ldg", "stg", "ffma", "fadd_fmul")
    values = [*(row[name] for name in names), integer, row["instructions"], row["multiply_adds"]]
    return [f"{value:.0f}" for value in values]


def _predictions(results: Row) -> Table:
    table = Table(
        "Triton: predicted times",
        "float32, window 11, one gradient, forward + backward, predicted by the same model as for "
        "the CUDA kernels. `planes`: planes of each pair of launches (3 x 7, 4: three times "
        "seven, then four); `tile` and `programs` are those of the first pair. `B`: DRAM bytes "
        "per element. `h in cache`: ms if the h planes between the two kernels never leave the L2 "
        "cache, as is possible if the groups are sized to fit it (RTX 4090); otherwise they go "
        "through DRAM. Loads for a later row come from memory, the others from the L1 cache. The "
        "model ignores that lanes two columns apart read two cache lines, and that an access at a "
        "shifted address reads one more. None of this was measured.",
        ["", "planes", "tile", "programs", "B", "bound by", "ms", "h in cache"],
    )
    for row in results["predictions"]:
        losses, gradients = row["launches"].values()
        low, high = (sum(launch["bytes"][i] for launch in (losses, gradients)) for i in range(2))
        table.rows.append(
            [
                f"{row['device']}, {tuple(row['shape'])}",
                _planes(row["planes"]),
                f"{losses['block']} x {losses['band_height']}",
                str(losses["programs"]),
                f"{low:.0f} to {high:.0f}",
                f"{losses['binding']}, {gradients['binding']}",
                f"{1e3 * row['seconds']:.3f}",
                f"{1e3 * row['seconds_with_h_in_cache']:.3f}",
            ]
        )
    return table


def _planes(groups: list[int]) -> str:
    """Format groups, e.g. 12 x 2, 1 for twelve groups of two planes and then one plane."""
    return ", ".join(
        f"{count} x {planes}" if count > 1 else str(planes)
        for planes, count in Counter(groups).items()
    )
