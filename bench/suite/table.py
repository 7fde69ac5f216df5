"""Tables of the results: plain text for the terminal, Markdown for the README."""

from collections.abc import Sequence
from pathlib import Path

from suite.cases import shape_name
from suite.contestants import NATIVE, NATIVE_PLAIN
from suite.figures import three
from suite.measure import Row
from suite.results import Results, contestants, find, milliseconds, shapes
from suite.speed import BOTH, FORWARD

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def text(results: Results) -> str:
    """All measurements, for a terminal."""
    lines = [_conditions(results), ""]
    for shape in shapes(results):
        lines += [f"{_by(shape)}, ms", f"{'':62}{'p10':>9}{'p50':>9}{'p90':>9}{'rounds':>8}"]
        lines += [
            _timed(row, f"{row['contestant']}, {row['pass']}")
            for row in results["speed"]
            if row["shape"] == shape
        ]
        lines.append("")
    for name, rows in _by_feature(results):
        lines.append(f"{name}, {_by(rows[0]['shape'])}, ms")
        lines += [_timed(row, _name_of(row)) for row in rows]
        lines.append("")
    lines.append("One single-channel image, side x side, forward + backward, ms")
    lines += [_timed(row, f"{row['contestant']}, {row['shape'][-1]}") for row in results["sweep"]]
    lines += ["", "Equal pixel counts, as images of side x side, ns per element"]
    lines += [
        f"{row['shape'][-1]:<62}{1e9 * row['p50'] / row['elements']:9.2f}"
        for row in results["equal_work"]
        if "p50" in row
    ]
    lines += ["", "Threads, forward + backward, ms"]
    lines += [_timed(row, f"{row['contestant']}, {row['threads']}") for row in results["threads"]]
    lines += ["", "Training step of the autoencoder with each loss, ms"]
    lines += [_timed(row, row["contestant"]) for row in results["training_step"]]
    lines += ["", "Memory beyond the images, bytes per element"]
    for row in results["memory"]:
        value = row.get("bytes_per_element")
        figure = row["skipped"] if value is None else f"{value:9.1f}"
        lines.append(f"{row['contestant'] + ', ' + row['pass']:<62}{figure}")
    lines += ["", "Relative error in float32", f"{'':62}{'loss':>9}{'gradient':>10}"]
    for row in results["errors"]:
        name = f"{row['contestant']}, {row['pair']}"
        if "skipped" in row:
            lines.append(f"{name:<62}{row['skipped']}")
        else:
            lines.append(f"{name:<62}{row['loss_error']:9.0e}{row['gradient_error']:10.0e}")
    lines += ["", f"Share of the machine's peak ({results['peak']['how']})"]
    for row in results["roofline"]:
        lines.append(
            f"{row['contestant'] + ', ' + shape_name(row['shape']):<62}"
            f"{row['operations_per_s'] / 1e9:8.1f} G operations/s = "
            f"{100 * row['share_of_arithmetic']:.0f} % of arithmetic, "
            f"{100 * row['share_of_bandwidth']:.0f} % of bandwidth"
        )
    lines += [f"skipped: {row['contestant']}: {row['reason']}" for row in results["skipped"]]
    return "\n".join(lines)


def markdown(
    results: Results,
    plots: Sequence[tuple[str, str]] = (),
    machines: Sequence[Results] = (),
) -> str:
    """The README's block, without its markers.

    plots: the path and description of each plot. machines: results to compare side by side.
    """
    main, *others = shapes(results)
    lines = [
        f"{_conditions(results)} Times are medians of interleaved rounds, in ms. Error: relative "
        "error of the gradient, float32 against float64, on textured / nearly equal images. "
        "Memory: bytes per element (one pixel of one channel) beyond the images.",
        "",
    ]
    head = ["", "border", f"{_by(main)}", "forward only", *map(_by, others), "error", "memory"]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in contestants(results):
        lines.append("| " + " | ".join(_cells(results, name, main, others)) + " |")
    lines.append("")
    lines += _ratios(machines)
    lines += _features(results)
    lines += _sentences(results)
    lines += [f"\n![{description}]({path})" for path, description in plots]
    return "\n".join(lines)


def update_readme(path: Path, block: str, begin: str = BEGIN, end: str = END) -> bool:
    """Put the block between the README's markers; return whether the file changed."""
    before = path.read_text(encoding="utf-8")
    if before.count(begin) != 1 or before.count(end) != 1:
        raise ValueError(f"{path} must contain {begin} and {end} exactly once each")
    head, rest = before.split(begin)
    if end not in rest:
        raise ValueError(f"{path} has {end} before {begin}")
    after = f"{head}{begin}\n{block.strip()}\n{end}{rest.split(end)[1]}"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def _conditions(results: Results) -> str:
    machine, packages = results["machine"], results["versions"]
    other = machine.get("other_work")
    busy = "" if other is None else f", {other:.1f} cores busy with other work"
    return (
        f"{_processor(results)}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_gib']:.0f} GiB{busy}, torch {packages['torch']}, {results['date'][:10]}."
    )


def _processor(results: Results) -> str:
    return f"{results['machine']['cpu']} with {results['machine']['instructions']}"


def _ratios(machines: Sequence[Results]) -> list[str]:
    """Speedup of the native kernels, one column per machine and shape."""
    columns = [(results, shape) for results in machines for shape in shapes(results)[:2]]
    if not columns:
        return []
    heads = [f"{_processor(results)}, {_by(shape)}" for results, shape in columns]
    lines = [
        "Speedup of the native kernels, forward + backward, with their defaults; in brackets, "
        'doing the same work as the other package (border "valid", no amplification):',
        "",
        "| over | " + " | ".join(heads) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in contestants(machines[0]):
        if name.startswith(NATIVE):
            continue
        cells = [_ratio(results, name, shape) for results, shape in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _ratio(results: Results, name: str, shape: Sequence[int]) -> str:
    theirs, default, plain = (
        find(results["speed"], contestant=contestant, shape=list(shape), **{"pass": BOTH})
        for contestant in (name, NATIVE, NATIVE_PLAIN)
    )
    if "p50" not in theirs or "p50" not in default:
        return "-"
    ratio = three(theirs["p50"] / default["p50"])
    if theirs["border"] != "valid" or "p50" not in plain:
        return ratio
    return f"{ratio} ({three(theirs['p50'] / plain['p50'])})"


def _features(results: Results) -> list[str]:
    """Losses beyond plain SSIM of images, a row per contestant."""
    if not results.get("features"):
        return []
    lines = [
        "Losses beyond plain SSIM of images, in ms; in brackets, relative to the first row:",
        "",
        f"| | shape | | {BOTH} | {FORWARD} |",
        "|---" * 5 + "|",
    ]
    for name, rows in _by_feature(results):
        first = rows[0]["contestant"]
        for contestant in dict.fromkeys(row["contestant"] for row in rows):
            times = []
            for which in (BOTH, FORWARD):
                row, base = (
                    find(rows, contestant=each, **{"pass": which}) for each in (contestant, first)
                )
                time = milliseconds(row)
                if contestant != first and "p50" in row and "p50" in base:
                    time += f" ({three(row['p50'] / base['p50'])})"
                times.append(time)
            head = f"{name} | {_by(rows[0]['shape'])}" if contestant == first else " | "
            lines.append(f"| {head} | {contestant} | " + " | ".join(times) + " |")
    return [*lines, ""]


def _by_feature(results: Results) -> list[tuple[str, list[Row]]]:
    rows: list[Row] = results.get("features", [])  # runs before they were measured have none
    names = dict.fromkeys(row["feature"] for row in rows)
    return [(name, [row for row in rows if row["feature"] == name]) for name in names]


def _name_of(row: Row) -> str:
    return f"{row['contestant']}, {row['pass']}" if "pass" in row else str(row["contestant"])


def _by(shape: Sequence[int]) -> str:
    return str(tuple(shape))


def _timed(row: Row, name: str) -> str:
    if "skipped" in row:
        return f"{name:<62}  not measured: {row['skipped']}"
    times = "".join(f"{three(1e3 * row[q]):>9}" for q in ("p10", "p50", "p90"))
    return f"{name:<62}{times}{row['rounds']:>8}"


def _cells(
    results: Results, name: str, main: Sequence[int], others: Sequence[Sequence[int]]
) -> list[str]:
    first = find(results["speed"], contestant=name)
    version = first.get("version")
    title = name if name.startswith("lamp_kernels") or not version else f"{name} {version}"
    cells = [title, first["border"]]
    for shape, which in [(main, BOTH), (main, FORWARD), *((shape, BOTH) for shape in others)]:
        row = find(results["speed"], contestant=name, shape=shape, **{"pass": which})
        cells.append(milliseconds(row))
    pairs = [
        find(results["errors"], contestant=name, pair=pair).get("gradient_error")
        for pair in ("textured", "nearly equal")
    ]
    cells.append(" / ".join("-" if e is None else f"{e:.0e}".replace("e-0", "e-") for e in pairs))
    used = find(results["memory"], contestant=name, **{"pass": BOTH}).get("bytes_per_element")
    cells.append("-" if used is None else f"{used:.0f}")
    return cells


def _sentences(results: Results) -> list[str]:
    """One paragraph each on the training step, threads, sizes, roofline and skipped contestants."""
    found = []
    steps = [row for row in results["training_step"] if "p50" in row]
    if steps:
        each = ", ".join(f"{milliseconds(row)} ms with {row['contestant']}" for row in steps)
        found.append(
            f"A training step of the autoencoder on {_by(steps[0]['shape'])} takes {each}."
        )
    scaling = [row for row in results["threads"] if "p50" in row]
    for name in dict.fromkeys(row["contestant"] for row in scaling):
        times = [
            f"{milliseconds(row)} ms on {row['threads']} thread{'s' * (row['threads'] > 1)}"
            for row in scaling
            if row["contestant"] == name
        ]
        if len(times) > 1:
            found.append(f"Thread scaling: {name} takes {', '.join(times)}.")
    even = [row for row in results["equal_work"] if "p50" in row]
    if even:
        each = ", ".join(
            f"{three(1e9 * row['p50'] / row['elements'])} at side {row['shape'][-1]}"
            for row in even
        )
        found.append(
            f"Image size, at {even[0]['elements']} pixels in total as single-channel images: "
            f"{even[0]['contestant']} takes, in ns per pixel, {each}."
        )
    if results["roofline"]:
        row = results["roofline"][0]
        found.append(
            f"{row['contestant']} does {row['operations_per_element']} operations per element; on "
            f"{_by(row['shape'])} it reaches {100 * row['share_of_arithmetic']:.0f} % of the peak "
            f"arithmetic and {100 * row['share_of_bandwidth']:.0f} % of the peak bandwidth "
            f"measured here ({results['peak']['how']})."
        )
    found += [f"Not measured: {row['contestant']}, {row['reason']}." for row in results["skipped"]]
    return ["\n\n".join(found)] if found else []
