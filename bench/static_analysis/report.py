"""The figures as tables, in plain text and in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from static_analysis import model, triton_report
from static_analysis.tables import Table

Results = dict[str, Any]
Row = dict[str, Any]


def text(results: Results) -> str:
    """For a terminal."""
    lines = [_origin(results)]
    for table in tables(results):
        lines += ["", table.title, *([table.words] if table.words else []), ""]
        widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
        for row in [table.head, *table.rows]:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(results: Results) -> str:
    """For docs/."""
    lines = [
        "# The GPU kernels by their compiled code",
        "",
        "Written by `bench/gpu_static.py`; not to be edited. Nothing here was measured on a GPU by "
        f"this project: figures are counted in the compiled code or computed from it. "
        f"{_origin(results)}",
    ]
    for table in tables(results):
        lines += ["", f"## {table.title}", ""]
        if table.words:
            lines += [table.words, ""]
        lines.append("| " + " | ".join(table.head) + " |")
        lines.append("|---" + "|---:" * (len(table.head) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    if "variants" in results:
        lines += ["", LEFT_OUT]
    return "\n".join(lines) + "\n"


def tables(results: Results) -> list[Table]:
    """All that the results have figures for."""
    if "variants" not in results:
        return triton_report.tables(results["triton"])
    made = [
        _registers(results),
        _spills(results),
        _loops(results),
        _by_radius(results),
        _plain(results),
        _published(results),
        _predictions(results),
        _aims(results),
        _devices(results),
        *(triton_report.tables(results["triton"]) if "triton" in results else []),
    ]
    return [table for table in made if table.rows]


LEFT_OUT = (
    "What the model leaves out: conflicts of shared memory banks (two_kernel.cu has some where "
    "rows of 26 meet, the streaming kernels' accesses are contiguous), misses of the "
    "instruction cache, the bandwidth of the L2 cache and h planes that it evicts, the DRAM "
    "traffic that it saves for images that fit in it, and clocks below boost. Of the streaming "
    "kernels it counts the common way: float32 images in dense rows, even and aligned where a "
    "thread has two columns; no weight; no pointwise term beside SSIM, which adds a launch."
)


def _origin(results: Results) -> str:
    if "variants" not in results:
        return f"Triton {results['triton']['triton']}."
    return (
        f"nvcc {results['nvcc']}, sources {results['sources']}, {results['date'][:10]}"
        f"{', --quick' if results['quick'] else ''}."
    )


def _targets(results: Results) -> list[str]:
    return list(dict.fromkeys(row["target"] for row in results["variants"]))


def _where(rows: Iterable[Row], **fields: Any) -> list[Row]:
    return [row for row in rows if all(row[k] == v for k, v in fields.items())]


def _kernel(row: Row) -> str:
    return f"{row['kernel']}, {row['type']}, {2 * row['radius'] + 1}, {row['gradients']}"


def _registers(results: Results) -> Table:
    targets = _targets(results)
    spilled = sum(row["spilled"] for row in results["variants"])
    spilled += sum(row["spilled"] for row in results["two_kernel"])
    table = Table(
        "Registers and warps",
        "Of a thread, and of the warps that one multiprocessor holds in blocks of 128 threads. "
        "`one`: loss and gradient in one launch; `one, common`: the same without what is rare; "
        f"`losses` and `gradients`: the two launches. Spilled: {spilled} bytes in "
        f"{len(results['variants'])} kernels.",
        ["kernel, type, window, gradients", *targets],
    )
    kernels = dict.fromkeys(_kernel(row) for row in results["variants"])
    by_target = {(_kernel(row), row["target"]): row for row in results["variants"]}
    for kernel in kernels:
        cells = [kernel]
        for target in targets:
            found = by_target.get((kernel, target))
            cells.append(f"{found['registers']} / {found['warps']}" if found else "-")
        table.rows.append(cells)
    return table


def _spills(results: Results) -> Table:
    table = Table(
        "Kernels that spill registers",
        "Bytes stored and loaded by a thread, as ptxas counts them; the aim is none.",
        ["kernel, type, window, gradients, target", "registers", "bytes"],
    )
    for r in results["variants"]:
        if r["spilled"]:
            table.rows.append(
                [f"{_kernel(r)}, {r['target']}", str(r["registers"]), str(r["spilled"])]
            )
    return table


_COUNTS = ["FFMA", "FADD, FMUL", "IMAD", "integer", "select", "move", "MUFU"]
_COUNTS += ["LDS, STS", "x 128 B", "LDG, STG, copies", "other", "all", "multiply-adds"]


def _counts(c: Row) -> list[str]:
    other = sum(c[k] for k in ("uniform", "convert", "fp64", "constant", "control"))
    values = [c["ffma"], c["fadd_fmul"], c["imad"], c["integer"], c["select"], c["move"], c["mufu"]]
    values += [c["lds"] + c["sts"], c["shared_wavefronts"], c["ldg"] + c["stg"] + c["copy"], other]
    return [_short(v) for v in [*values, c["instructions"], c["multiply_adds"]]]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}"


def _loops(results: Results) -> Table:
    table = Table(
        "Instructions of a row",
        "Of the kernels as they are shipped, float, window 11, per position: the longest path "
        "through the common loop, so that what only a block's first warp does counts for all. "
        "Multiply-adds: FFMA + FADD + FMUL. `x 128 B`: shared memory cycles of a warp. `cycles`: "
        "of a scheduler with four warps, simulated by bench/static_analysis/schedule.py.",
        ["", *_COUNTS, "cycles"],
    )
    for r in _where(results["loops"], radius=5):
        name = (
            f"{r['target']}, {r['kernel']}, {r['gradients']} gradient{'s' * (r['gradients'] > 1)}"
        )
        table.rows.append([name, *_counts(r["position"]), _short(r["cycles_of_position"])])
    return table


def _by_radius(results: Results) -> Table:
    targets = _targets(results)
    target = "sm_90" if "sm_90" in targets else targets[-1]
    rows = _where(results["loops"], target=target)
    table = Table(
        f"Windows, on {target}",
        "Instructions of a position, and cycles of a row where a scheduler has 1, 2 or 4 warps; "
        "then, where it has 2, of a row that only fills windows, and of a tile beside its rows: "
        "indices, levels, sums. In brackets what csrc/cuda takes them for when it chooses tiles.",
        [
            *("kernel, window, gradients", "columns", "position", "multiply-adds"),
            *("1 warp", "2", "4", "filling", "beside"),
        ],
    )
    if len({r["radius"] for r in rows}) > 1:
        for r in rows:
            known = r["known_cycles"]
            found = [
                (r["cycles"][0], known[0]),
                (r["cycles"][1], known[1]),
                (r["cycles"][3], known[2]),
                (r["warming"][1], r["known_warming"] * known[1]),
                (r["beside"][1], r["known_beside"][0] + 2 * r["known_beside"][1]),
            ]
            table.rows.append(
                [
                    f"{r['kernel']}, {2 * r['radius'] + 1}, {r['gradients']}",
                    str(r["columns"]),
                    _short(r["position"]["instructions"]),
                    _short(r["position"]["multiply_adds"]),
                    *(f"{a:.0f} ({b:.0f})" for a, b in found),
                ]
            )
    return table


def _plain(results: Results) -> Table:
    table = Table(
        "The plain two kernels",
        "bench/two_kernel.cu, per element, compiled with fused-ssim's flags (--use_fast_math "
        "--maxrregcount=32); conflicts of shared memory banks are not counted.",
        ["", "registers", "warps", *_COUNTS],
    )
    for r in results["two_kernel"]:
        name = f"{r['target']}, {r['kernel']}"
        table.rows.append([name, str(r["registers"]), str(r["warps"]), *_counts(r["element"])])
    return table


def _published(results: Results) -> Table:
    c = results["constants"]
    table = Table(
        "The model against published times",
        "A launch takes as long as the slower of its DRAM traffic and its instructions. Constants: "
        f"{100 * c['dram_share']:.0f} % of the DRAM's bandwidth, {1e6 * c['launch_gap']:.1f} us "
        f"between launches, {c['near_latency']} and {c['far_latency']} cycles until shared and "
        "global memory answer. The first was chosen knowing these times; for which shares the "
        f"model is within {100 * model.TOLERANCE:.0f} % is in the last column. They are "
        "bound by traffic and would agree without any instructions, so they prove that part of "
        "the model alone. The share of issue slots, which decides for the streaming kernel, comes "
        "out of playing the compiled code through (bench/static_analysis/schedule.py) and is "
        "compared with nothing.",
        ["", "device", "launches", "B", "published, ms", "model, ms", "error", "shares"],
    )
    for r in results["published"]:
        table.rows.append(
            [
                f"{r['what']}, {_shape(r['shape'])}" + ("" if r["gate"] else " (not asked for)"),
                r["device"],
                str(len(r["launches"])),
                f"{r['bytes']:.0f}",
                f"{r['published_ms']:.2f}",
                f"{r['predicted_ms']:.2f}",
                f"{100 * r['error']:+.0f} %",
                "{:.2f} to {:.2f}".format(*r["shares"]),
            ]
        )
    return table


def _shape(shape: Sequence[int]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _predictions(results: Results) -> Table:
    table = Table(
        "Predicted times",
        "float, window 11, one gradient, forward + backward, border zeros. `tiles`: columns x rows "
        "of each launch. `planes`: how many at a time, so that h fits half of the L2 cache. "
        "`kernels`: the SSIM launches alone; in brackets the estimate by which csrc/cuda/plan.cu "
        "chooses. `all`: with the launches around them. `plain`: the plain two kernels with the "
        "launches around them, 80 bytes. `ratio`: plain to ours; in brackets with all memory free "
        "for the plain design alone, its lower bound where planes stay in the L2 cache (*). The "
        "design that is chosen is bold.",
        [
            "",
            "design",
            "tiles",
            "planes",
            "instructions",
            "B",
            "issue slots",
            "bound by",
            "kernels, us",
            "all, us",
            "plain, us",
            "ratio",
        ],
    )
    for r in results["predictions"]:
        cache = " *" if r["plane_in_cache"] else ""
        parts = r["launches"].values()
        of_tiles = [part["tiles"] for part in parts]
        groups = f"{r['planes'][0]}" + (f" of {sum(r['planes'])}" if len(r["planes"]) > 1 else "")
        mark = "**" if r["chosen"] else ""
        table.rows.append(
            [
                f"{r['device']}, {_shape(r['shape'])}{cache}",
                f"{mark}{r['design']}{mark}",
                ", ".join(f"{t['strip_width']} x {t['band_height']}" for t in of_tiles),
                groups,
                f"{r['instructions']:.0f}",
                f"{r['dram_bytes']:.1f}",
                f"{100 * r['issue_share']:.0f} %",
                ", ".join(dict.fromkeys(part["binding"] for part in parts)),
                f"{1e6 * r['kernel_seconds']:.1f} ({1e6 * r['planned_seconds']:.1f})",
                f"{mark}{1e6 * r['seconds']:.1f}{mark}",
                f"{1e6 * r['two_kernel']['seconds']:.1f}",
                f"{r['ratio']:.1f} ({r['ratio_without_memory']:.1f})",
            ]
        )
    return table


# Of forward + backward on an H100, in us.
_AIMS = {(8, 3, 256, 256): 40, (64, 1, 28, 28): 20, (1, 3, 1080, 1920): 110}


def _aims(results: Results) -> Table:
    table = Table("Aims", "Predictions, not measurements.", ["", "aim", "found", "met"])

    def row(what: str, sign: str, limit: float, found: float, text: str) -> None:
        met = found <= limit if sign == "<=" else found >= limit
        table.rows.append([what, f"{sign} {limit:g}", text, "yes" if met else "no"])

    gates = [r for r in results["published"] if r["gate"]]
    if gates:
        worst = max((100 * r["error"] for r in gates), key=abs)
        limit = 100 * model.TOLERANCE
        what = "published times of the plain design, error, %"
        row(what, "<=", limit, abs(worst), f"{worst:+.0f}")
    for r in results["predictions"]:
        aim = _AIMS.get(tuple(r["shape"]))
        if not r["chosen"] or not r["device"].startswith("H100") or aim is None:
            continue
        where, us = f"{r['device']}, {_shape(r['shape'])}", 1e6 * r["seconds"]
        row(f"{where}: us", "<=", aim, us, f"{us:.1f}")
        row(f"{where}: plain design to ours", ">=", 2, r["ratio"], f"{r['ratio']:.2f}")
    return table


def _devices(results: Results) -> Table:
    table = Table("Devices", "", ["", "SMs", "MHz", "float32 lanes", "GB/s", "source"])
    for d in results["devices"]:
        table.rows.append(
            [
                d["name"],
                str(d["multiprocessors"]),
                f"{d['clock'] / 1e6:.0f}",
                str(d["float32_lanes"]),
                f"{d['bandwidth'] / 1e9:.0f}",
                d["source"],
            ]
        )
    return table
