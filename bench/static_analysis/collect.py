"""Compiles, counts and predicts: collects all figures as plain values for JSON."""

import datetime
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from static_analysis import build, model, sources
from static_analysis.build import Known, Plan, Query, Tools, Variant
from static_analysis.devices import DEVICES, TARGETS, WARP, Device, Target, occupancy
from static_analysis.sass import (
    Instruction,
    count,
    unrolled,
    until_exit,
    without_calls,
)
from static_analysis.schedule import (
    FAR_LATENCY,
    NEAR_LATENCY,
    cycles_of_blocks,
    unit_cycles,
)
from static_analysis.tile_code import TileCode, cycles_of_row, rows_of

Row = dict[str, Any]

SCHEMA = 2
MAIN: model.Shape = (1, 3, 1080, 1920)
# The shapes that have a target time, and a large one.
SHAPES: tuple[model.Shape, ...] = ((8, 3, 256, 256), (64, 1, 28, 28), MAIN, model.BIG)
RADIUS, GRADIENTS = 5, 1  # of the predicted kernels
DESIGNS = {"one": (build.COMMON,), "two": (build.LOSSES, build.GRADIENTS_KERNEL)}
PREDICTED = [
    Variant(k, "float", RADIUS, GRADIENTS) for kernels in DESIGNS.values() for k in kernels
]

# The kernels of bench/two_kernel.cu, by a part of their mangled names, and how often a block's 8
# warps execute the two loops: 26 x 26 pixels take 22 iterations of a warp, 26 x 16 sums take 13.
PLAIN = {"forward": "forwardILb1", "inference": "forwardILb0", "backward": "backward"}
ITERATIONS = (22 / 8, 13 / 8)
# The flags that fused-ssim compiles its kernels with.
PLAIN_FLAGS = ("--use_fast_math", "--maxrregcount=32")
# Rows with a result, and warps, of the tile whose cycles outside its rows are compared with those
# that csrc/cuda assumes.
KNOWN_ROWS, KNOWN_WARPS = 24, 2
# Iterations of the two warps of a scheduler with an average load.
SCHEDULER_ITERATIONS = ((3, 2), (3, 1))


def collect(
    tools: Tools, targets: Sequence[int], quick: bool, say: Callable[[str], None] = print
) -> Row:
    """Collect all figures of the CUDA kernels."""
    variants = build.all_variants((RADIUS,), ("float",)) if quick else build.all_variants()
    rows: list[Row] = []
    loops: list[Row] = []
    tiles_code: dict[tuple[int, str], TileCode] = {}
    plain: dict[int, dict[str, list[Instruction]]] = {}
    plain_rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources.snapshot(folder)
        of_code = sources.digest(folder)
        known = build.known(tools, variants, folder)
        for number in targets:
            target = TARGETS[number]
            say(f"{target.name}: {len(variants)} kernels")
            found, cubin = build.compile_variants(tools, variants, number, folder)
            rows += [_resources(target, v, found[v], known[v]) for v in sorted(found)]
            if tools.cuobjdump is None:
                continue
            for mangled, code in sorted(tools.disassembled(cubin).items()):
                variant = build.variant_of(mangled)
                if variant.type != "float" or not variant.gradients or variant.kernel == build.ONE:
                    continue
                tile = TileCode.of(variant.kernel, code)
                loops.append(_loop(target, variant, tile, known[variant]))
                if variant in PREDICTED:
                    tiles_code[number, variant.kernel] = tile
            cubin = folder / f"plain-{number}.cubin"
            found_plain = build.compile_kernels(
                tools, folder / sources.TWO_KERNEL.name, number, cubin, PLAIN_FLAGS
            )
            plain[number] = _plain_code(tools, cubin)
            for kernel, part in PLAIN.items():
                used = next(r for mangled, r in found_plain.items() if part in mangled)
                plain_rows.append(_plain_row(target, kernel, used, plain[number][kernel]))
        devices = [d for d in DEVICES if int(d.target.name[3:]) in plain]
        say("predictions for " + (", ".join(d.name for d in devices) or "no device"))
        keys = [
            (d, shape, design)
            for d in devices
            for shape in SHAPES
            for design in ("fastest", *DESIGNS)
        ]
        plans = dict(
            zip(keys, build.plans(tools, [Query(q, s, d) for d, s, q in keys], folder), strict=True)
        )
    predictions: list[Row] = []
    published: list[Row] = []
    for device in devices:
        number = int(device.target.name[3:])
        block_cycles = _block_cycles(device, plain[number], plain_rows)
        for shape in SHAPES:
            chosen = plans[device, shape, "fastest"]
            for design in DESIGNS:
                plan = plans[device, shape, design]
                if plan is not None and chosen is not None:
                    row = _prediction(device, shape, plan, rows, tiles_code, block_cycles)
                    predictions.append({**row, "chosen": chosen.design == design})
        published += [
            _compared(p, device, block_cycles) for p in model.PUBLISHED if p.device == device.name
        ]
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "nvcc": tools.release(),
        "sources": of_code,
        "quick": quick,
        "constants": {
            "dram_share": model.DRAM_SHARE,
            "launch_gap": model.LAUNCH_GAP,
            "near_latency": NEAR_LATENCY,
            "far_latency": FAR_LATENCY,
        },
        "variants": rows,
        "loops": loops,
        "two_kernel": plain_rows,
        "predictions": predictions,
        "published": published,
        "devices": [
            {
                "name": d.name,
                "target": d.target.name,
                "multiprocessors": d.multiprocessors,
                "clock": d.clock,
                "float32_lanes": d.target.float32,
                "integer_lanes": d.target.integer,
                "bandwidth": d.bandwidth,
                "source": d.source,
            }
            for d in devices
        ],
    }


def _resources(target: Target, variant: Variant, used: build.Resources, known: Known) -> Row:
    shared = used.shared_memory + known.shared_memory
    fits = occupancy(target, build.KNOWN_THREADS, used.registers, shared)
    return {
        "target": target.name,
        **asdict(variant),
        "registers": used.registers,
        "spilled": used.spilled,
        "shared_static": used.shared_memory,
        "shared_dynamic": known.shared_memory,
        "blocks": fits.blocks,
        "warps": fits.warps,
        "limit": fits.limit,
    }


def _loop(target: Target, variant: Variant, tile: TileCode, known: Known) -> Row:
    body = tile.full
    owners = [list(range(warps)) for warps in range(1, 5)]
    cycles = [cycles_of_row(body, some, target) for some in owners]
    return {
        "target": target.name,
        **asdict(variant),
        "columns": known.columns,
        "position": (count(body) * (1 / (rows_of(body) * known.columns))).as_row(),
        "row": len(body) / rows_of(body),
        "warming_row": len(tile.warming) / rows_of(tile.warming),
        "known_cycles": list(known.cycles),
        "known_warming": known.warming,
        "known_beside": list(known.beside),
        # Of a row, of a warm-up row, and of a tile outside its rows, for 1 to 4 warps on a
        # scheduler.
        "cycles": cycles,
        "warming": [cycles_of_row(tile.warming, some, target) for some in owners],
        "beside": [
            tile.cycles_outside_rows(KNOWN_ROWS, known.columns, KNOWN_WARPS, some, target)
            for some in owners
        ],
        "cycles_of_position": cycles[3] / 4 / known.columns,
        "unit_cycles": {k: v / rows_of(body) for k, v in unit_cycles(body, target).items()},
    }


def _plain_code(tools: Tools, cubin: Path) -> dict[str, list[Instruction]]:
    code = tools.disassembled(cubin)
    return {
        kernel: without_calls(until_exit(next(c for name, c in code.items() if part in name)))
        for kernel, part in PLAIN.items()
    }


def _plain_row(
    target: Target, kernel: str, used: build.Resources, code: Sequence[Instruction]
) -> Row:
    straight = count(unrolled(code, (0, 0)))
    loops = [count(unrolled(code, once)) + straight * -1 for once in ((1, 0), (0, 1))]
    threads = model.SIDE**2
    fits = occupancy(target, threads, used.registers, used.shared_memory)
    return {
        "target": target.name,
        "kernel": kernel,
        "registers": used.registers,
        "spilled": used.spilled,
        "shared_static": used.shared_memory,
        "blocks": fits.blocks,
        "warps": fits.warps,
        # One thread per pixel.
        "element": (straight + loops[0] * ITERATIONS[0] + loops[1] * ITERATIONS[1]).as_row(),
    }


def _block_cycles(
    device: Device, code: dict[str, list[Instruction]], rows: Sequence[Row]
) -> dict[str, list[float]]:
    """Cycles of 0, 1, ... concurrent blocks on a multiprocessor, by kernel."""
    found = {}
    for kernel, instructions in code.items():
        row = next(r for r in rows if r["target"] == device.target.name and r["kernel"] == kernel)
        traces = [unrolled(instructions, iterations) for iterations in SCHEDULER_ITERATIONS]
        found[kernel] = [0.0] + [
            cycles_of_blocks(traces, blocks, device.target)
            for blocks in range(1, row["blocks"] + 1)
        ]
    return found


def _owners(warps: int, blocks: int, target: Target) -> list[int]:
    """The block that each warp belongs to, for the warps of the scheduler that has the most."""
    # Warps are assigned to the schedulers round-robin.
    return [i // warps for i in range(blocks * warps)][:: target.schedulers]


def _prediction(
    device: Device,
    shape: model.Shape,
    plan: Plan,
    rows: Sequence[Row],
    tiles_code: dict[tuple[int, str], TileCode],
    block_cycles: dict[str, list[float]],
) -> Row:
    target, number = device.target, int(device.target.name[3:])
    n, planes = model.elements(shape), shape[0] * shape[1]
    groups = [
        min(plan.planes_at_once, planes - first) for first in range(0, planes, plan.planes_at_once)
    ]
    parts: list[model.Part] = []
    launches: Row = {}
    instructions = multiply_adds = dram = 0.0
    for kernel, tiles in plan.launches.items():
        code = tiles_code[number, kernel]
        used = next(
            r
            for r in rows
            if (r["target"], r["kernel"], r["type"], r["radius"], r["gradients"])
            == (target.name, kernel, "float", RADIUS, GRADIENTS)
        )
        fits = occupancy(target, tiles.threads, used["registers"], tiles.shared_memory)
        more = model.overhead(tiles, RADIUS, shape)
        moved = model.streamed_bytes(kernel, tiles, GRADIENTS, more)
        full_rows, warps = more.longest - more.warming, tiles.threads // WARP
        columns = -(-tiles.strip_width // tiles.threads)
        # Cycles of a tile, for 0, 1, ... concurrent blocks on a multiprocessor.
        tile_cycles = [0.0]
        for at_once in range(1, fits.blocks + 1):
            owners = _owners(warps, at_once, target)
            tile_cycles.append(
                full_rows * cycles_of_row(code.full, owners, target)
                + more.warming * cycles_of_row(code.warming, owners, target)
                + code.cycles_outside_rows(full_rows, columns, warps, owners, target)
            )
        # Groups of planes one after another, each as large as the scratch memory for h allows.
        some = [
            model.streamed_part(tiles, (1, group, *shape[2:]), device, moved, tile_cycles)
            for group in groups
        ]
        parts += some
        launches[kernel] = {
            "tiles": asdict(tiles),
            "blocks": groups[0] * tiles.strips * tiles.bands,
            "blocks_at_once": fits.blocks * device.multiprocessors,
            "warps": fits.warps,
            "position_factor": more.positions,
            "dram_bytes": moved,
            "binding": some[0].binding,
            "seconds": model.seconds(some),
        }
        of_full, of_warming = (
            len(iteration) / rows_of(iteration) for iteration in (code.full, code.warming)
        )
        outside = len(code.outside_rows(full_rows, columns, warps))
        mean = (full_rows * of_full + more.warming * of_warming + outside) / more.longest
        instructions += mean / tiles.columns * more.positions
        of_row = count(code.full).multiply_adds / rows_of(code.full)
        multiply_adds += of_row / tiles.columns * more.positions
        dram += moved
    first = next(iter(plan.launches.values()))  # the kernel that writes sums
    reads = sources.batch_sum_reads(planes * first.strips * first.bands)
    around = [
        # The sum over all tiles: reads and a reduction.
        model.Part(0.0, (1 + reads) * FAR_LATENCY / device.clock),
        # PyTorch fills the gradient of the loss itself ...
        model.Part(0.0, 0.0),
        # ... and backward multiplies by it: the blocks read that it is 1 and exit.
        model.Part(0.0, FAR_LATENCY / device.clock),
    ]
    plain = model.plain_parts([*model.FORWARD, *model.BACKWARD], shape, device, block_cycles)
    seconds, theirs = model.seconds([*parts, *around]), model.seconds(plain)
    kernels = model.seconds(parts)
    per_second = target.schedulers * device.multiprocessors * device.clock
    return {
        "device": device.name,
        "shape": list(shape),
        "design": plan.design,
        "planes": groups,
        "launches": launches,
        "instructions": instructions,
        "multiply_adds": multiply_adds,
        "dram_bytes": dram,
        "issue_share": instructions * n / WARP / per_second / kernels,
        "kernel_seconds": kernels,
        "planned_seconds": plan.seconds,
        "seconds": seconds,
        "two_kernel": {
            "seconds": theirs,
            "seconds_without_memory": model.seconds(plain, memory=False),
            "bytes": sum(p.bytes for p in [*model.FORWARD, *model.BACKWARD]),
            "launches": len(plain),
            "binding": [part.binding for part in plain],
        },
        "ratio": theirs / seconds,
        "ratio_without_memory": model.seconds(plain, memory=False) / seconds,
        "plane_in_cache": 4 * n < device.cache,
    }


def _compared(
    published: model.Published, device: Device, block_cycles: dict[str, list[float]]
) -> Row:
    parts = model.plain_parts(published.launches, published.shape, device, block_cycles)
    predicted = 1e3 * model.seconds(parts)
    return {
        "what": published.what,
        "device": published.device,
        "shape": list(published.shape),
        "source": published.source,
        "published_ms": published.milliseconds,
        "predicted_ms": predicted,
        "error": predicted / published.milliseconds - 1,
        "bytes": sum(launch.bytes for launch in published.launches),
        "launches": [launch.name for launch in published.launches],
        "gate": published.gate,
        "agrees": abs(predicted / published.milliseconds - 1) <= model.TOLERANCE,
        "shares": list(model.agreeing_shares(published, device, block_cycles)),
    }
