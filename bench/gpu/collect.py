"""Compiles, counts and predicts: everything of the table, as plain values for JSON."""

import datetime
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu import build, model
from gpu.build import Query, Tiles, Tools, Variant
from gpu.devices import DEVICES, TARGETS, WARP, Device, Target, occupancy
from gpu.sass import Counts, Instruction, count, main_loop, unrolled, until_exit, without_calls
from gpu.schedule import (
    FAR_LATENCY,
    NEAR_LATENCY,
    cycles_of_blocks,
    cycles_of_turn,
    unit_cycles,
)

Row = dict[str, Any]

SCHEMA = 1
MAIN: model.Shape = (1, 3, 1080, 1920)
SHAPES: tuple[model.Shape, ...] = (MAIN, (8, 3, 256, 256), model.BIG)
QUICK = [Variant("float", 5, g) for g in build.GRADIENTS]
ALL = [Variant(t, r, g) for t in build.TYPES for r in build.RADII for g in build.GRADIENTS]
PREDICTED = Variant("float", 5, 1)

# What the compiler makes of bench/two_kernel.cu, by what is in the names, and how often a block's
# 8 warps go through the two loops: 26 x 26 pixels are 22 turns of a warp, 26 x 16 sums are 13.
PLAIN = {"forward": "forwardILb1", "inference": "forwardILb0", "backward": "backward"}
TURNS = (22 / 8, 13 / 8)
# Of the two warps that a scheduler of middling load has.
TURNS_OF_SCHEDULER = ((3, 2), (3, 1))


def collect(
    tools: Tools, targets: Sequence[int], quick: bool, say: Callable[[str], None] = print
) -> Row:
    """All of it."""
    variants = QUICK if quick else ALL
    rows: list[Row] = []
    loops: list[Row] = []
    bodies: dict[int, list[Instruction]] = {}
    plain: dict[int, dict[str, list[Instruction]]] = {}
    plain_rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build.snapshot(folder)
        sources = build.digest(folder)
        tiles = _tiles(tools, variants, targets, folder)
        predicted_tiles = _predicted_tiles(tools, folder)
        for number in targets:
            target = TARGETS[number]
            for of_type in build.TYPES:
                some = [v for v in variants if v.type == of_type]
                if not some:
                    continue
                say(f"{target.name}: {len(some)} kernels in {of_type}")
                found, _ = build.compile_variants(tools, some, number, folder)
                rows += [_resources(target, v, found[v], tiles[number, v]) for v in sorted(found)]
            if tools.cuobjdump is None:
                continue
            some = [v for v in variants if v.type == "float" and v.gradients]
            say(f"{target.name}: loops of {len(some)} kernels")
            _, cubin = build.compile_variants(tools, some, number, folder, common=True)
            for mangled, code in sorted(tools.disassembled(cubin).items()):
                variant = build.variant_of(mangled)
                body = main_loop(code)
                loops.append(_loop(target, variant, body, tiles[number, variant]))
                if variant == PREDICTED:
                    bodies[number] = body
            cubin = folder / f"plain-{number}.cubin"
            found_plain = build.compile_kernels(
                tools, folder / build.TWO_KERNEL.name, number, cubin
            )
            plain[number] = _plain_code(tools, cubin)
            for kernel, part in PLAIN.items():
                used = next(r for mangled, r in found_plain.items() if part in mangled)
                plain_rows.append(_plain_row(target, kernel, used, plain[number][kernel]))
    devices = [d for d in DEVICES if int(d.target.name[3:]) in bodies]
    say("models of " + (", ".join(d.name for d in devices) or "no device"))
    predictions: list[Row] = []
    published: list[Row] = []
    for device in devices:
        number = int(device.target.name[3:])
        used = next(r for r in rows if r["target"] == device.target.name and _is(r, PREDICTED))
        block_cycles = _block_cycles(device, plain[number], plain_rows)
        for shape in SHAPES:
            predictions.append(
                _prediction(
                    device,
                    shape,
                    predicted_tiles[device.name, shape],
                    used["registers"],
                    bodies[number],
                    block_cycles,
                )
            )
        published += [
            _compared(p, device, block_cycles) for p in model.PUBLISHED if p.device == device.name
        ]
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "nvcc": tools.release(),
        "sources": sources,
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


def _is(row: Row, variant: Variant) -> bool:
    return (row["type"], row["radius"], row["gradients"]) == (
        variant.type,
        variant.radius,
        variant.gradients,
    )


def _tiles(
    tools: Tools, variants: Sequence[Variant], targets: Sequence[int], folder: Path
) -> dict[tuple[int, Variant], Tiles]:
    keys = [(number, v) for number in targets for v in variants]
    queries = [
        Query(v, MAIN, TARGETS[n].multiprocessors, TARGETS[n].shared_memory_of_block)
        for n, v in keys
    ]
    return dict(zip(keys, build.tiles(tools, queries, folder), strict=True))


def _predicted_tiles(tools: Tools, folder: Path) -> dict[tuple[str, model.Shape], Tiles]:
    keys = [(d, shape) for d in DEVICES for shape in SHAPES]
    queries = [
        Query(PREDICTED, shape, d.multiprocessors, d.target.shared_memory_of_block)
        for d, shape in keys
    ]
    answers = build.tiles(tools, queries, folder)
    return {(d.name, shape): t for (d, shape), t in zip(keys, answers, strict=True)}


def _resources(target: Target, variant: Variant, used: build.Resources, tiles: Tiles) -> Row:
    shared = used.shared_memory + tiles.shared_memory
    fits = occupancy(target, tiles.threads, used.registers, shared)
    return {
        "target": target.name,
        **asdict(variant),
        "registers": used.registers,
        "spilled": used.spilled,
        "threads": tiles.threads,
        "shared_static": used.shared_memory,
        "shared_dynamic": tiles.shared_memory,
        "blocks": fits.blocks,
        "warps": fits.warps,
        "limit": fits.limit,
    }


def _loop(target: Target, variant: Variant, body: Sequence[Instruction], tiles: Tiles) -> Row:
    counts = count(body)
    more = model.overhead(tiles, variant.radius, MAIN)
    dram, asked = model.streamed_bytes(tiles, variant.gradients, more)
    return {
        "target": target.name,
        **asdict(variant),
        "columns": tiles.columns,
        "strip_width": tiles.strip_width,
        "band_height": tiles.band_height,
        "threads": tiles.threads,
        "row_factor": more.rows,
        "column_factor": more.columns,
        "position": _counted(counts * (1 / tiles.columns)),
        "element": _counted(counts * (more.positions / tiles.columns)),
        "dram_bytes": dram,
        "asked_bytes": asked,
        "unit_cycles": unit_cycles(body, target),
    }


def _counted(counts: Counts) -> Row:
    return {
        **counts.kinds,
        "instructions": counts.instructions,
        "multiply_adds": counts.multiply_adds,
        "shared_wavefronts": counts.shared_wavefronts,
        "global_bytes": counts.global_bytes,
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
    turns = [count(unrolled(code, once)) + straight * -1 for once in ((1, 0), (0, 1))]
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
        # A thread for each pixel.
        "element": _counted(straight + turns[0] * TURNS[0] + turns[1] * TURNS[1]),
    }


def _block_cycles(
    device: Device, code: dict[str, list[Instruction]], rows: Sequence[Row]
) -> dict[str, list[float]]:
    """Of 0, 1, ... blocks at once on a multiprocessor, by the kernel."""
    found = {}
    for kernel, instructions in code.items():
        row = next(r for r in rows if r["target"] == device.target.name and r["kernel"] == kernel)
        traces = [unrolled(instructions, turns) for turns in TURNS_OF_SCHEDULER]
        found[kernel] = [0.0] + [
            cycles_of_blocks(traces, blocks, device.target)
            for blocks in range(1, row["blocks"] + 1)
        ]
    return found


def _row_cycles(
    body: Sequence[Instruction], warps: int, blocks: int, target: Target
) -> list[float]:
    """Of a row of 0, 1, ... blocks at once, by the scheduler that has the most warps."""
    found = [0.0]
    for at_once in range(1, blocks + 1):
        # Warps go to the schedulers in turn.
        owner = [i // warps for i in range(at_once * warps)][:: target.schedulers]
        found.append(cycles_of_turn(body, owner, target))
    return found


def _prediction(
    device: Device,
    shape: model.Shape,
    tiles: Tiles,
    registers: int,
    body: Sequence[Instruction],
    block_cycles: dict[str, list[float]],
) -> Row:
    target = device.target
    fits = occupancy(target, tiles.threads, registers, tiles.shared_memory)
    more = model.overhead(tiles, PREDICTED.radius, shape)
    dram, asked = model.streamed_bytes(tiles, PREDICTED.gradients, more)
    warps = tiles.threads // WARP
    row_cycles = _row_cycles(body, warps, fits.blocks, target)
    n = model.elements(shape)
    ours = [
        model.streamed_part(tiles, more, shape, device, dram, row_cycles),
        # The sum over tiles: a read, a reduction.
        model.Part(0.0, 2 * FAR_LATENCY / device.clock),
        # Around them: the factors, the sum over images, the gradient of the loss by itself ...
        *[model.Part(0.0, 0.0)] * 3,
        # ... and backward's multiplication by it, whose blocks read that it is 1, and end.
        model.Part(0.0, FAR_LATENCY / device.clock),
    ]
    plain = model.plain_parts([*model.FORWARD, *model.BACKWARD], shape, device, block_cycles)
    per_second = target.schedulers * device.multiprocessors * device.clock
    factor = more.positions / (WARP * tiles.columns) / per_second
    units = {name: busy * factor for name, busy in unit_cycles(body, target).items()}
    total = n_tiles(shape, tiles)
    at_once = fits.blocks * device.multiprocessors
    seconds, theirs = model.seconds(ours), model.seconds(plain)
    return {
        "device": device.name,
        "shape": list(shape),
        "tiles": asdict(tiles),
        "tiles_total": total,
        "tiles_at_once": at_once,
        "warps": fits.warps,
        "position_factor": more.positions,
        "multiply_adds": count(body).multiply_adds / tiles.columns * more.positions,
        "instructions": len(body) / tiles.columns * more.positions,
        "dram_bytes": dram,
        "asked_bytes": asked,
        # Seconds per element that each resource is busy.
        "units": {**units, "dram": model.dram_seconds(dram, shape, device) / n},
        "row_cycles": row_cycles[-1],
        "issue_share": len(body) * warps * fits.blocks / target.schedulers / row_cycles[-1],
        "binding": ours[0].binding,
        "seconds": seconds,
        "seconds_per_element": seconds / n,
        # The same if no warp had to wait and all multiprocessors had equal work.
        "least_seconds": max(max(units.values()) * n, ours[0].dram) + 2 * model.LAUNCH_GAP,
        "cycles_by_warps": [cycles_of_turn(body, list(range(w)), target) / w for w in range(1, 5)],
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


def n_tiles(shape: model.Shape, tiles: Tiles) -> int:
    """Of all planes."""
    return shape[0] * shape[1] * tiles.strips * tiles.bands


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
