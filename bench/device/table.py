"""The results of the check, as text for a terminal."""

from collections.abc import Iterable
from typing import Any

from suite.figures import three

Report = dict[str, Any]


def text(report: Report) -> str:
    """Phases, failed and skipped tests, the sanitizer's summary, and the benchmarks."""
    lines = [_machine(report), "", f"{'phase':<14}{'status':<10}{'s':>7}{'limit':>7}"]
    lines += [
        f"{row['phase']:<14}{row['status']:<10}{row['seconds']:7.0f}{row['limit']:7.0f}"
        f"  {row.get('reason', '')}".rstrip()
        for row in report["phases"]
    ]
    lines += _build(report.get("build", {}))
    lines += _tests(report.get("native", {}))
    lines += _sanitizer(report.get("sanitizer", {}))
    lines += _sweep(report.get("sweep", {}))
    lines += _counters(report.get("counters", {}))
    lines += _benchmarks(report.get("timing", {}))
    lines += _rows("wall-clock time of a call in a loop, ms", report.get("calls", {}), "contestant")
    lines += _rows("a training step, ms", report.get("training", {}), "loss")
    lines += _autotune(report.get("autotune", {}))
    lines += _tests(report.get("suite", {}))
    return "\n".join(lines)


def _machine(report: Report) -> str:
    found = report.get("environment", {})
    devices = [
        f"{device['name']} (sm_{device['capability'].replace('.', '')}, "
        f"{device['memory_gib']:.0f} GiB)"
        for device in found.get("devices", [])
    ]
    parts = [", ".join(devices) or found.get("cpu", "unknown machine")]
    parts += [
        f"{what} {version}"
        for what, version in (
            ("torch", found.get("packages", {}).get("torch")),
            ("CUDA", found.get("cuda_of_torch")),
            ("nvcc", (found.get("programs") or {}).get("nvcc")),
        )
        if version
    ]
    return ", ".join([*parts, report["date"]])


def _build(build: Report) -> list[str]:
    lines = ["", build["report"].rstrip()] if "report" in build else []
    return [*lines, "", "build:", build["output"].rstrip()] if build.get("failed") else lines


def _tests(tests: Report) -> list[str]:
    if not tests:
        return []
    lines = ["", f"{'tests':<44}{'status':<18}{'passed':>7}{'failed':>7}{'skipped':>8}{'s':>7}"]
    for file in tests["files"]:
        lines.append(
            f"{file['file'].removeprefix('tests/'):<44}{file['status']:<18}{file['passed']:7}"
            f"{file['failed']:7}{file['skipped']:8}{file['seconds']:7.0f}"
        )
        lines += [f"    failed: {failure['test']}" for failure in file.get("failures", [])]
        lines += [f"    {count} skipped: {why}" for why, count in file.get("skips", {}).items()]
        if "missing_packages" in file:
            lines.append(f"    not installed: {', '.join(file['missing_packages'])}")
        if file.get("last"):
            lines.append(f"    last test: {file['last']}")
    lines += [f"skipped: {row['folder']}: {row['reason']}" for row in tests["left_out"]]
    return lines


def _sanitizer(sanitizer: Report) -> list[str]:
    tools = sanitizer.get("tools", [])
    if not tools:
        return []
    return ["", *(f"{row['tool']:<14}{row['status']:<10}{row['summary']}" for row in tools)]


def _sweep(sweep: Report) -> list[str]:
    if not sweep:
        return []
    lines = ["", f"sweep of {sweep['tilings']} tilings, ms cold and warm; speedup over the default"]
    for row in sweep["best"]:
        kind = "default" if row.get("own") else f"best of design {row.get('design')}"
        name = f"{row['shape']} {row.get('border')} gradients={row.get('gradients')}, {kind}"
        tile = f"{row.get('threads')} threads, {row.get('strips')} strips, {row.get('bands')} bands"
        times = f"{three(row['cold_ms']):>9}{three(row['warm_ms']):>9}"
        lines.append(f"  {name:<66}{times}{row.get('default_over_this') or 0:8.2f}  {tile}")
    lines += [f"  wrong: {row}" for row in sweep["wrong"]]
    return lines + [f"  skipped: {problem}" for problem in sweep["problems"]]


def _counters(counters: Report) -> list[str]:
    lines: list[str] = []
    for program in counters.get("programs", []):
        lines += ["", f"counters of {program['program']}"]
        for kernel in program["kernels"]:
            known = {name: value for name, value in kernel.items() if value is not None}
            lines.append(f"  {str(known.pop('kernel', '?'))[:70]}")
            figures = [
                f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in known.items()
            ]
            lines.append(f"    {', '.join(figures)}")
        if not program["kernels"]:
            lines.append(f"  nothing read: {program.get('output', '')[-300:]}")
    return lines


def _rows(title: str, results: Report, name: str) -> list[str]:
    """Rows with a shape, a call mode and quantiles."""
    rows = results.get("rows", [])
    lines = ["", f"{title}: p10, p50, p90"] if rows else []
    for row in rows:
        label = f"  {row['shape']} {row['how']} {row.get(name, '')}"
        cells = row.get("skipped") or "".join(
            f"{three(1e3 * row[key]):>9}" for key in ("p10", "p50", "p90")
        )
        lines.append(f"{label:<76}{cells}")
    for row in results.get("ratios", []):
        lines.append(f"  {row['shape']} {row['how']}: SSIM / MSE {row['ssim_over_mse']:.3f}")
    return lines


def _autotune(results: Report) -> list[str]:
    lines = ["", "tiles selected by Triton autotuning"] if results.get("winners") else []
    for row in results.get("winners", []):
        lines.append(f"  {row['shape']}, {row['seconds']} s {row.get('skipped', '')}".rstrip())
        lines += [f"    {chosen['tile']}" for chosen in row["chosen"]]
    return lines


def _benchmarks(results: Report) -> list[str]:
    if not results:
        return []
    copy = results.get("copy") or {}
    lines = ["", f"ms, measured by {results['how']}"]
    if "bytes_per_s" in copy:
        lines.append(
            f"copy of {copy['bytes'] // 2**21} MiB: {three(copy['bytes_per_s'] / 1e9)} GB/s"
        )
    speed = results.get("speed", [])
    for shape in _distinct(tuple(row["shape"]) for row in speed):
        lines.append(
            f"{shape!s:<52}{'p10':>9}{'p50':>9}{'p90':>9}{'rounds':>8}{'GB/s':>8}{'of copy':>9}"
        )
        rows = [row for row in speed if tuple(row["shape"]) == shape]
        lines += [_timed(row, f"  {row['contestant']}, {_variant(row)}") for row in rows]
    if results.get("host"):
        lines.append("one call on a small image, idle device, µs: until returned, until computed")
    for row in results.get("host", []):
        cells = row.get("skipped") or "".join(
            f"{three(1e6 * row[key]):>9}" for key in ("returned_s", "computed_s")
        )
        lines.append(f"  {row['contestant']:<50}{cells}")
    if results.get("memory"):
        lines.append("memory beyond the images, bytes per element")
    for row in results.get("memory", []):
        name = f"{row['contestant']}, {row['dtype']}" if "contestant" in row else ""
        cells = row.get("skipped") or f"{three(row['bytes_per_element']):>9}"
        lines.append(f"  {name:<50}{cells}" if name else f"  {cells}")
    lines += [f"skipped: {r['contestant']}: {r['reason']}" for r in results.get("skipped", [])]
    if not results.get("complete"):
        lines.append("the benchmarks did not finish")
    return lines


def _variant(row: Report) -> str:
    """The dtype, and anything unusual: forward only, a warm cache."""
    unusual = [row.get(key) for key, usual in (("pass", "forward + backward"), ("cache", "cold"))
               if row.get(key) not in (None, usual, "not flushed")]  # fmt: skip
    return ", ".join([row["dtype"], *map(str, unusual)])


def _timed(row: Report, name: str) -> str:
    if "skipped" in row:
        return f"{name:<52}{row['skipped']}"
    times = "".join(f"{three(1e3 * row[key]):>9}" for key in ("p10", "p50", "p90"))
    rate = f"{three(row['bytes_per_s'] / 1e9):>8}{100 * row['share_of_copy']:7.1f} %"
    return f"{name:<52}{times}{row['rounds']:8}{rate}"


def _distinct(values: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(values))
