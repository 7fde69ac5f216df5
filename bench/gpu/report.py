"""The figures as tables, in plain text and in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from gpu import model, triton_report
from gpu.tables import Table

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
        _occupancy(results),
        _loops(results),
        _by_radius(results),
        _plain(results),
        _published(results),
        _predictions(results),
        _units(results),
        _aims(results),
        _devices(results),
        *(triton_report.tables(results["triton"]) if "triton" in results else []),
    ]
    return [table for table in made if table.rows]


LEFT_OUT = (
    "What the model leaves out: conflicts of shared memory banks (two_kernel.cu has some where "
    "rows of 26 meet, the streaming kernel's accesses are contiguous), misses of the "
    "instruction cache, the bandwidth of the L2 cache, what it spares the DRAM for "
    "planes that fit in it, and clocks below boost. Of the streaming kernel it counts the common "
    "path alone: float32 images, dense rows, aligned; not the threads at the edge of an image, "
    "which look up each pixel and for whom their block waits (in small images most blocks have "
    "such), nor half types, odd widths and channels_last, which take more instructions to read, "
    "nor pointwise terms beside SSIM, which read their pixels again."
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


def _registers(results: Results) -> Table:
    targets = _targets(results)
    spilled = sum(row["spilled"] for row in results["variants"])
    spilled += sum(row["spilled"] for row in results["two_kernel"])
    table = Table(
        "Registers and warps",
        f"Of a thread, and of the SSIM kernel's warps that one multiprocessor holds. Spilled: "
        f"{spilled} bytes in {len(results['variants'])} kernels.",
        ["type, window, gradients", *targets],
    )
    keys = dict.fromkeys((r["type"], r["radius"], r["gradients"]) for r in results["variants"])
    for of_type, radius, gradients in keys:
        row = [f"{of_type}, {2 * radius + 1}, {gradients}"]
        for target in targets:
            found = _where(
                results["variants"],
                target=target,
                type=of_type,
                radius=radius,
                gradients=gradients,
            )
            row.append(f"{found[0]['registers']} / {found[0]['warps']}" if found else "-")
        table.rows.append(row)
    return table


def _spills(results: Results) -> Table:
    table = Table(
        "Kernels that spill registers",
        "Bytes stored and loaded by a thread, as ptxas counts them; the aim is none.",
        ["type, window, gradients, target", "registers", "bytes"],
    )
    for r in results["variants"]:
        if r["spilled"]:
            name = f"{r['type']}, {2 * r['radius'] + 1}, {r['gradients']}, {r['target']}"
            table.rows.append([name, str(r["registers"]), str(r["spilled"])])
    return table


def _occupancy(results: Results) -> Table:
    table = Table(
        "What one multiprocessor holds",
        "float, window 11, in the tiles that ssim_tiling chooses for (1, 3, 1080, 1920) on the "
        "device that stands for the target.",
        ["target, gradients", "threads", "registers", "static", "dynamic", "blocks", "warps", "by"],
    )
    for r in _where(results["variants"], type="float", radius=5):
        table.rows.append(
            [
                f"{r['target']}, {r['gradients']}",
                str(r["threads"]),
                str(r["registers"]),
                f"{r['shared_static']} B",
                f"{r['shared_dynamic']:,} B",
                str(r["blocks"]),
                str(r["warps"]),
                r["limit"],
            ]
        )
    return table


_COUNTS = ["FFMA", "FADD, FMUL", "IMAD", "integer", "select", "move", "MUFU"]
_COUNTS += ["LDS, STS", "x 128 B", "LDG, STG", "other", "all", "multiply-adds"]


def _counts(c: Row) -> list[str]:
    other = sum(c[k] for k in ("uniform", "convert", "fp64", "constant", "control"))
    values = [c["ffma"], c["fadd_fmul"], c["imad"], c["integer"], c["select"], c["move"], c["mufu"]]
    values += [c["lds"] + c["sts"], c["shared_wavefronts"], c["ldg"] + c["stg"], other]
    return [_short(v) for v in [*values, c["instructions"], c["multiply_adds"]]]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}"


def _loops(results: Results) -> Table:
    table = Table(
        "Instructions of the main loop",
        "Of a build without what is rare (LAMP_COUNT_COMMON); float, window 11. Per position: a "
        "row of one column. Per element: times what is computed for neighbours and for the sake of "
        "whole warps, with the strip and band of (1, 3, 1080, 1920). Multiply-adds: FFMA + FADD + "
        "FMUL. `x 128 B`: cycles of the shared memory for a warp.",
        ["", *_COUNTS, "B of DRAM"],
    )
    for r in _where(results["loops"], radius=5):
        name = f"{r['target']}, {r['gradients']} gradient{'s' * (r['gradients'] > 1)}"
        table.rows.append([f"{name}, position", *_counts(r["position"]), ""])
        own = f"element ({r['strip_width']} x {r['band_height']}: "
        own += f"x {r['row_factor'] * r['column_factor']:.2f})"
        table.rows.append([own, *_counts(r["element"]), f"{r['dram_bytes']:.1f}"])
    return table


def _by_radius(results: Results) -> Table:
    targets = _targets(results)
    target = "sm_90" if "sm_90" in targets else targets[-1]
    rows = _where(results["loops"], target=target)
    table = Table(
        f"Windows, on {target}",
        "Per position, as above.",
        ["window, gradients", "columns of a thread", *_COUNTS],
    )
    if len({r["radius"] for r in rows}) > 1:
        for r in rows:
            name = f"{2 * r['radius'] + 1}, {r['gradients']}"
            table.rows.append([name, str(r["columns"]), *_counts(r["position"])])
    return table


def _plain(results: Results) -> Table:
    table = Table(
        "The plain two kernels",
        "bench/two_kernel.cu, per element; conflicts of shared memory banks are not counted.",
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
        "out of playing the compiled code through (bench/gpu/schedule.py) and is compared with "
        "nothing.",
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
        "float, window 11, one gradient, forward + backward, border zeros. `least`: if no warp "
        "had to wait and all multiprocessors had equal work. `plain`: the two kernels with the "
        "launches around them, 80 bytes; ours, too, with what is launched around it: `B` is the "
        "kernel's traffic, and backward's multiplication by an upstream gradient of 1 has none. "
        "`ratio`: plain to ours; in brackets with all memory free for the plain design alone, "
        "which is the least it can be where planes stay in the L2 cache (*).",
        [
            "",
            "tile",
            "B",
            "multiply-adds",
            "issue slots",
            "bound by",
            "ms",
            "least",
            "plain, ms",
            "ratio",
        ],
    )
    for r in results["predictions"]:
        t = r["tiles"]
        cache = " *" if r["plane_in_cache"] else ""
        table.rows.append(
            [
                f"{r['device']}, {_shape(r['shape'])}{cache}",
                f"{t['strip_width']} x {t['band_height']}, {t['threads']} threads",
                f"{r['dram_bytes']:.1f}",
                f"{r['multiply_adds']:.0f}",
                f"{100 * r['issue_share']:.0f} %",
                r["binding"],
                f"{1e3 * r['seconds']:.3f}",
                f"{1e3 * r['least_seconds']:.3f}",
                f"{1e3 * r['two_kernel']['seconds']:.3f}",
                f"{r['ratio']:.1f} ({r['ratio_without_memory']:.1f})",
            ]
        )
    return table


_UNITS = ("issue", "float32", "half", "integer", "special", "memory", "float64", "dram")


def _units(results: Results) -> Table:
    table = Table(
        "How long each resource is busy",
        "ps per element. `half`: IMAD, where it has half of the multiply-add lanes; `special`: "
        "MUFU; `memory`: shared memory and L1. `all`: the predicted time.",
        ["", *_UNITS, "all"],
    )
    for r in results["predictions"]:
        busy = [r["units"].get(unit) for unit in _UNITS]
        table.rows.append(
            [
                f"{r['device']}, {_shape(r['shape'])}",
                *("-" if b is None else f"{1e12 * b:.1f}" for b in busy),
                f"{1e12 * r['seconds_per_element']:.1f}",
            ]
        )
    return table


def _aims(results: Results) -> Table:
    table = Table("Aims", "", ["", "aim", "found"])
    gates = [r for r in results["published"] if r["gate"]]
    if gates:
        worst = max((r["error"] for r in gates), key=abs)
        table.rows.append(
            [
                "published times of the plain design, error",
                f"<= {100 * model.TOLERANCE:.0f} %",
                f"{100 * worst:+.0f} %",
            ]
        )
    for r in results["predictions"]:
        if not r["device"].startswith("H100") or r["shape"][0] == 8:
            continue
        where = f"{r['device']}, {_shape(r['shape'])}"
        table.rows += [
            [f"{where}: multiply-adds per element", "<= 240", f"{r['multiply_adds']:.0f}"],
            [f"{where}: bytes of DRAM per element", "<= 12.5", f"{r['dram_bytes']:.1f}"],
            [f"{where}: plain design to ours", ">= 3", f"{r['ratio']:.1f}"],
        ]
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
