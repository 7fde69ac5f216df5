"""The counts of compiled CUDA code and the time model, without a GPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from static_analysis import build, collect, model, report, sass, schedule, sources, tile_code
from static_analysis.build import Plan, Query, Tiles, Tools, Variant
from static_analysis.devices import DEVICES, TARGETS, occupancy

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def results():
    """The committed figures."""
    return json.loads((BENCH / "static_analysis" / "figures.json").read_text(encoding="utf-8"))


def line(address: int, text: str, stall: int = 1, write: int = 7, read: int = 7, wait: int = 0):
    control = stall | 1 << 4 | write << 5 | read << 8 | wait << 11
    return (
        f"        /*{address:04x}*/                   {text} ;   /* 0x0000000000007918 */\n"
        f"                                                      /* {control << 41:#018x} */\n"
    )


# Output of cuobjdump: two loops, the second with a barrier; a division with its subroutine.
SASS = "\n\t\tFunction : _Z6kernelv\n" + "".join(
    line(0x10 * i, text, **control)
    for i, (text, control) in enumerate(
        [
            ("S2R R0, SR_TID.X", {"write": 0}),
            ("@!P1 LDG.E.64 R2, desc[UR4][R4.64]", {"write": 1, "wait": 0b1}),
            ("IADD3 R0, R0, 0x1, RZ", {"stall": 4}),
            ("@P0 BRA 0x10", {"stall": 5}),
            ("STS.128 [R0], R4", {"read": 2, "wait": 0b10}),
            ("BAR.SYNC.DEFER_BLOCKING 0x0", {"stall": 5}),
            ("LDS.64 R6, [R0+0x10]", {"write": 0, "wait": 0b100}),
            ("FFMA R2, R6, R7, R2", {"stall": 4, "wait": 0b1}),
            ("@P2 FADD R3, R2, R6.reuse", {}),
            ("FMUL R3, R3, R3", {}),
            ("IMAD.MOV.U32 R8, RZ, RZ, R3", {}),
            ("IMAD.WIDE.U32 R8, R8, UR4, R10", {}),
            ("HFMA2.MMA R9, -RZ, RZ, 1.875, 0", {}),
            ("MUFU.RCP R3, R3", {"write": 3}),
            ("FFMA2 R12, R12, R14, R16", {"wait": 0b1000}),
            ("@!P0 BRA 0x40", {"stall": 5}),
            ("@P3 BRA 0x140", {}),
            ("MOV R20, 0x130", {}),
            ("CALL.REL.NOINC 0x160", {}),
            ("BRA 0x140", {}),
            ("STG.E desc[UR4][R4.64], R3", {}),
            ("EXIT", {"stall": 5}),
            ("RET.REL.NODEC R20 0x0", {}),
            ("BRA 0x170", {}),
        ]
    )
)


@pytest.fixture
def code():
    return sass.parse(SASS)["_Z6kernelv"]


def test_sass_is_parsed(code):
    assert len(code) == 24
    load = code[1]
    assert (load.name, load.operation, load.kind, load.bytes) == ("LDG", "LDG.E.64", "ldg", 8)
    assert not load.unconditional
    assert (load.write, load.read, load.wait) == (1, 7, 1)
    assert (code[3].target, code[3].stall) == (0x10, 5)


def test_the_guard_of_a_uniform_branch_follows_it():
    texts = ("BRA 0x10", "@P0 BRA 0x10", "@!UP1 BRA 0x10", "BRA.U UP0, 0x10", "BRA.U !UP3, 0x10")
    branches = made(*texts)
    assert [i.unconditional for i in branches] == [True, False, False, False, False]
    assert {i.target for i in branches} == {0x10}


def test_half_an_instruction_is_rejected():
    first, _ = line(0, "EXIT").splitlines()
    with pytest.raises(ValueError, match="second half of an instruction"):
        sass.parse(f"Function : f\n{first}\n")


def test_the_row_loop_is_the_one_with_a_barrier(code):
    assert [len(body) for body in sass.loops(code)] == [3, 12]
    (body,) = tile_code.row_loops(code)
    assert (body[0].name, body[-1].name) == ("STS", "BRA")
    with pytest.raises(ValueError, match="no loop contains a barrier"):
        tile_code.row_loops(code[:4])


# A row loop nested in another loop, with two alternative branches and a rare case that is skipped.
BRANCHES = (
    "IADD3 R9, R9, 0x1, RZ",
    "BAR.SYNC 0x0",
    "@P0 BRA 0x50",
    "MUFU.RCP R3, R3",
    "BRA 0x80",
    "FADD R1, R1, R1",
    "FADD R2, R2, R2",
    "FADD R6, R6, R6",
    "@P1 BRA 0xa0",
    "STG.E desc[UR4][R4.64], R3",
    "@P2 BRA 0x10",
    "@P3 BRA 0x0",
    "EXIT",
)


def test_the_longest_path_through_a_row():
    code = [sass.Instruction(16 * i, text) for i, text in enumerate(BRANCHES)]
    (body,) = tile_code.row_loops(code)  # only the inner loop
    assert [i.address for i in (body[0], body[-1])] == [0x10, 0xA0]

    names = [i.name for i in sass.longest_path(body)]
    assert names == ["BAR", "BRA", "FADD", "FADD", "FADD", "BRA", "STG", "BRA"]


def test_paths_that_lead_nowhere():
    code = made(
        *("@P0 BRA 0x30", "BRX R2 -0x10", "FADD R1, R1, R1"),
        *("FMUL R1, R1, R1", "@P1 CALL.REL.NOINC 0x60", "BRA 0x30", "EXIT"),
    )
    path = sass.longest_path(code)
    assert [i.name for i in path] == ["BRA", "FMUL", "CALL", "EXIT"]
    assert sass.longest_path(code, 3, lambda i: i.name == "CALL") == path[1:3]
    with pytest.raises(ValueError, match="no path leads"):
        sass.longest_path(code, 1)


# Two paths through the rows, each with a warm-up loop; the common path copies twice.
LOOPS = (
    *("BAR.SYNC 0x0", "LDGSTS [R0], desc[UR4][R2.64]", "LDGSTS [R0], desc[UR4][R2.64]"),
    *("FADD R1, R1, R1", "@P0 BRA 0x0"),
    *("BAR.SYNC 0x0", "LDGSTS [R0], desc[UR4][R2.64]", "LDGSTS [R0], desc[UR4][R2.64]"),
    *("FADD R1, R1, R1", "STG.E desc[UR4][R4.64], R1", "@P0 BRA 0x50"),
    *("BAR.SYNC 0x0", "LDGSTS [R0], desc[UR4][R2.64]", "@P0 BRA 0xb0"),
    *("BAR.SYNC 0x0", "LDGSTS [R0], desc[UR4][R2.64]", "LDG.E R1, desc[UR4][R2.64]"),
    *("FADD R1, R1, R1", "FADD R1, R1, R1", "STG.E desc[UR4][R4.64], R1", "@P0 BRA 0xe0"),
    "EXIT",
)


def test_the_common_full_and_warm_up_rows():
    code = [sass.Instruction(16 * i, text) for i, text in enumerate(LOOPS)]
    full, warming = tile_code.common_rows(code, "stg")
    assert (full[0].address, warming[0].address) == (0x50, 0x0)
    with pytest.raises(ValueError, match="no loop over rows both loads and has mufu"):
        tile_code.common_rows(code, "mufu")
    with pytest.raises(ValueError, match="lacks stg and loads as much"):
        tile_code.common_rows(code[5:], "stg")


# A losses kernel: a start with a loop over columns; warm-up rows, two per iteration; rows with a
# result and a loop around them, where a new run of rows may begin; an end.
TILE = (
    *("S2R R0, SR_TID.X", "LDG.E R1, desc[UR4][R2.64]", "@P3 BRA 0x10"),
    *("BAR.SYNC 0x0", "LDG.E R1, desc[UR4][R2.64]"),
    *("BAR.SYNC 0x0", "LDG.E R1, desc[UR4][R2.64]", "@P0 BRA 0x30"),
    *("@P4 BRA 0xa0", "IADD3 R9, R9, 0x1, RZ"),
    *("BAR.SYNC 0x0", "LDG.E R1, desc[UR4][R2.64]", "MUFU.RCP R3, R3", "@P1 BRA 0xa0"),
    *("FADD R5, R5, R3", "@P2 BRA 0x80", "STG.E desc[UR4][R4.64], R5", "EXIT", "FADD R1, R1, R1"),
)


def test_the_parts_of_a_tile():
    tile = tile_code.TileCode.of(build.LOSSES, made(*TILE))

    def names(part):
        return [i.name for i in part]

    assert names(tile.before) == ["S2R", "LDG", "BRA"]
    assert [names(iteration) for iteration in tile.loops_before] == [["LDG", "BRA"]]
    assert names(tile.warming) == ["BAR", "LDG", "BAR", "LDG", "BRA"]
    assert names(tile.across) == ["BRA"]
    assert names(tile.between) == ["BRA", "IADD3", "FADD", "BRA"]
    assert names(tile.between_in_run) == ["BRA", "FADD", "BRA"]
    assert names(tile.full) == ["BAR", "LDG", "MUFU", "BRA"]
    assert names(tile.after) == ["STG", "EXIT"]

    assert [tile_code.rows_of(body) for body in (tile.warming, tile.full)] == [2, 1]
    in_turn = schedule.cycles_of_iteration(tile.warming, [0], TARGETS[90])
    assert tile_code.cycles_of_row(tile.warming, [0], TARGETS[90]) == in_turn / 2

    # 65 rows: two iterations within a run of rows. Three columns: two more iterations of the loop.
    outside = tile.outside_rows(65, 3, 2)
    assert len(outside) == 3 + 2 * 2 + 1 + 4 + 2 * 3 + 2
    cycles = tile.cycles_outside_rows(65, 3, 2, [0], TARGETS[90])
    assert cycles == schedule.cycles([outside], TARGETS[90])[0]


def test_rows_that_fetch_nothing_are_not_counted_as_code_after_the_rows():
    fetching = ("BAR.SYNC 0x0", "LDGSTS [R0], desc[UR4][R2.64]", "STG.E desc[UR4][R4.64], R1")
    code = made(
        *("BAR.SYNC 0x0", "LDGSTS [R0], desc[UR4][R2.64]", "@P0 BRA 0x0"),
        *("IADD3 R9, R9, 0x1, RZ", *fetching, "@P1 BRA 0x40", "@P2 BRA 0x30"),
        *("BAR.SYNC 0x0", "STG.E desc[UR4][R4.64], R1", "@P3 BRA 0x90", "EXIT"),
    )
    tile = tile_code.TileCode.of(build.GRADIENTS_KERNEL, code)
    assert [i.name for i in tile.full] == ["BAR", "LDGSTS", "STG", "BRA"]
    assert tile.after == []


def test_counts(code):
    (body,) = tile_code.row_loops(code)
    counts = sass.count(sass.longest_path(body))
    expected = {"ffma": 3, "fadd_fmul": 2, "imad": 1, "move": 2, "mufu": 1, "lds": 1, "sts": 1}
    assert {k: v for k, v in counts.kinds.items() if v} == {**expected, "control": 2}
    assert counts.multiply_adds == 5  # FFMA2 is two
    assert counts.shared_wavefronts == 4 + 2
    assert sass.count(code).global_bytes == 8 + 4
    assert (counts * 0.5 + counts * 0.5).kinds == counts.kinds


def test_every_kind_is_in_the_table(code):
    assert {i.kind for i in code} <= set(sass.KINDS)


def test_unrolling_without_subroutines(code):
    code = sass.without_calls(sass.until_exit(code))
    assert [i.name for i in code[-3:]] == ["BRA", "STG", "EXIT"]
    assert len(sass.unrolled(code, (0, 0))) == len(code) - 3 - 12
    assert len(sass.unrolled(code, (2, 1))) == len(code) + 3
    with pytest.raises(ValueError, match="2 loops"):
        sass.unrolled(code, (1,))


# ---- The schedule ------------------------------------------------------------------------------


def made(*texts: str, **control: int) -> list[sass.Instruction]:
    return [sass.Instruction(16 * i, text, **control) for i, text in enumerate(texts)]


def test_one_warp_stalls_as_the_code_specifies():
    chain = made(*["FFMA R0, R0, R0, R0"] * 10, stall=4)
    assert schedule.cycles([chain], TARGETS[90]) == [37]
    # Two warps fill each other's gaps; eight of them need all issue slots.
    assert max(schedule.cycles([chain] * 2, TARGETS[90])) == 38
    assert max(schedule.cycles([chain] * 8, TARGETS[90])) == 80


def test_half_as_many_lanes_take_twice_as_long():
    many = [made(*["FFMA R0, R1, R2, R3"] * 20)] * 4
    assert max(schedule.cycles(many, TARGETS[90])) == 80
    assert max(schedule.cycles(many, TARGETS[80])) == 159


def test_a_warp_waits_for_results():
    load = sass.Instruction(0, "LDS R0, [R1]", write=0)
    use = sass.Instruction(16, "FADD R0, R0, R0", wait=1)
    busy = 4  # a 128-byte access is shared by four schedulers
    assert schedule.cycles([[load, use]], TARGETS[90]) == [busy + schedule.NEAR_LATENCY + 1]


def test_a_warp_waits_for_copies_in_groups():
    copy, end = made("LDGSTS.E [R0], desc[UR4][R2.64]", "LDGDEPBAR", write=0)
    one, all_ = made("DEPBAR.LE SB0, 0x1", "DEPBAR.LE SB0, 0x0")
    there = 4 + schedule.FAR_LATENCY  # the first copy; the second starts once that is issued
    work = made(*["FFMA R0, R1, R2, R3"] * 100)
    first = [copy, end, copy, end]
    assert schedule.cycles([[*first, one]], TARGETS[90]) == [there + 1]
    assert schedule.cycles([[*first, all_]], TARGETS[90]) == [there + 5]
    assert schedule.cycles([[*first, *work, all_]], TARGETS[90]) == [there + 5]
    assert schedule.cycles([[copy, end, one]], TARGETS[90]) == [3]


def test_a_barrier_stops_only_the_warps_of_its_block():
    slow = made(*["MUFU.RCP R0, R0"] * 10, "BAR.SYNC 0x0", "EXIT")
    fast = made("BAR.SYNC 0x0", "EXIT")
    together = schedule.cycles([slow, fast], TARGETS[90], [0, 0])
    apart = schedule.cycles([slow, fast], TARGETS[90], [0, 1])
    assert min(together) > 70 > apart[1]
    with pytest.raises(ValueError, match="ended before"):
        schedule.cycles([made("BAR.SYNC 0x0", "EXIT"), made("EXIT")], TARGETS[90])


def test_cycles_of_a_loop_iteration():
    body = made(*["FFMA R0, R1, R2, R3"] * 99, "BAR.SYNC 0x0")
    assert schedule.cycles_of_iteration(body, [0], TARGETS[90]) == pytest.approx(100)
    assert schedule.cycles_of_iteration(body, [0, 0], TARGETS[90]) == pytest.approx(200, abs=2)
    assert schedule.cycles_of_blocks([body, body], 2, TARGETS[90]) == pytest.approx(400, rel=0.05)


# ---- Devices and the model ---------------------------------------------------------------------


def test_occupancy():
    assert occupancy(TARGETS[90], 256, 237, 66_000).blocks == 1
    assert occupancy(TARGETS[90], 128, 237, 34_000) == occupancy(TARGETS[80], 128, 240, 34_000)
    assert occupancy(TARGETS[75], 64, 243, 17_488).limit == "shared memory"
    assert occupancy(TARGETS[89], 256, 38, 13_728).warps == 48
    assert occupancy(TARGETS[90], 32, 16, 0).limit == "blocks"


TILES = Tiles(
    columns=2,
    halo=5,
    threads=64,
    strips=2,
    strip_width=50,
    bands=2,
    band_height=40,
    shared_memory=0,
)


def test_overhead_of_tiles():
    more = model.overhead(TILES, 5, (1, 1, 80, 100))
    # With a halo, the upper band reads pixel rows -10 to 50, the lower one 30 to 90.
    assert more.rows == pytest.approx(2 * 61 / 80)
    assert (more.longest, more.warming) == (61, 10)
    assert more.columns == pytest.approx(2 * 128 / 100)
    assert more.rows_read == pytest.approx((50 + 50) / 80)
    # The left strip reads pixels -10 to 127, the right one 40 to 177.
    assert more.columns_read == pytest.approx((100 + 60) / 100)
    dram = model.streamed_bytes(build.COMMON, TILES, 1, more)
    assert dram == pytest.approx(8 * (100 / 80 + 8 / 40) + 4)
    assert model.streamed_bytes(build.LOSSES, TILES, 1, more) == pytest.approx(dram - 4)
    assert model.streamed_bytes(build.GRADIENTS_KERNEL, TILES, 1, more) == 8 + 4


def test_a_launch_takes_as_many_rounds_as_its_tiles_need():
    device = DEVICES[0]
    part = model.streamed_part(TILES, (1, 100, 80, 100), device, 0.0, [0.0, 1000.0])
    assert 3 * device.multiprocessors < 100 * TILES.strips * TILES.bands  # 4 rounds
    assert part.multiprocessors == pytest.approx(4 * 1000 / device.clock)


def test_rounds():
    device = DEVICES[0]
    cycles = [0.0, 10.0, 16.0]
    assert model.in_rounds(1, device, 2, cycles) == 10
    assert model.in_rounds(2 * device.multiprocessors, device, 2, cycles) == 16
    assert model.in_rounds(5 * device.multiprocessors, device, 2, cycles) == 42


def test_the_slower_resource_binds():
    assert model.Part(2e-3, 1e-3).seconds == pytest.approx(2e-3 + model.LAUNCH_GAP)
    assert model.Part(2e-3, 1e-3).binding == "DRAM"
    assert model.Part(1e-3, 2e-3).binding == "instructions"


def test_the_plain_design_moves_80_bytes_in_9_launches():
    launches = [*model.FORWARD, *model.BACKWARD]
    assert sum(launch.bytes for launch in launches) == 80
    assert len(launches) == 9


def test_published_times_are_explained_by_traffic():
    """The model agrees even with no instructions at all, so agreement does not validate counts."""
    idle = {kernel: [0.0, 0.0] for kernel in collect.PLAIN}
    (device,) = (d for d in DEVICES if d.name == "RTX 4090")
    for published in model.PUBLISHED:
        parts = model.plain_parts(published.launches, published.shape, device, idle)
        error = 1e3 * model.seconds(parts) / published.milliseconds - 1
        assert abs(error) < model.TOLERANCE, published.what
        least, greatest = model.agreeing_shares(published, device, idle)
        assert least < model.DRAM_SHARE < greatest


# ---- The compiler's output -----------------------------------------------------------------------

PTXAS = """\
ptxas info    : Compiling entry function '_ZN1n11ssim_kernelIfLi5ELi1ELb1EEEvT_' for 'sm_90'
ptxas info    : Function properties for _ZN1n11ssim_kernelIfLi5ELi1ELb1EEEvT_
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 237 registers, used 1 barriers, 13728 bytes smem, 416 bytes cmem[0]
"""


def test_ptxas_report():
    ((name, found),) = build.resources(PTXAS).items()
    assert build.variant_of(name) == Variant(build.COMMON, "float", 5, 1)
    assert found == build.Resources(registers=237, spilled=20, shared_memory=13728)


def test_variants_of_mangled_names():
    some = {
        "_ZN1n11ssim_kernelIdLi7ELi2ELb0EEEvT_": Variant(build.ONE, "double", 7, 2),
        "_ZN1n18ssim_losses_kernelIfLi5ELi0EEEvT_": Variant(build.LOSSES, "float", 5, 0),
        "_ZN1n21ssim_gradients_kernelIfLi3ELi1EEEvT_": Variant(
            build.GRADIENTS_KERNEL, "float", 3, 1
        ),
    }
    assert {name: build.variant_of(name) for name in some} == some
    assert len(build.all_variants()) == len(set(build.all_variants())) == 7 * 11


def test_other_kernels_are_not_variants():
    with pytest.raises(ValueError, match="not an SSIM kernel"):
        build.variant_of("_Z10sum_kernelv")


def test_the_document_shows_the_committed_figures(results):
    document = (BENCH.parent / "docs" / "gpu_static.md").read_text(encoding="utf-8")
    assert report.markdown(results) == document
    assert not results["quick"]
    main = [r for r in results["variants"] if (r["type"], r["radius"]) == ("float", 5)]
    assert len(main) == 8 * len(TARGETS)
    assert not any(row["spilled"] for row in [*results["variants"], *results["two_kernel"]])
    gates = [row for row in results["published"] if row["gate"]]
    assert len(gates) == 2
    assert all(row["agrees"] for row in gates)
    assert report.text(results)


@pytest.fixture(scope="module")
def tools():
    try:
        return Tools.find()
    except build.MissingToolError as error:
        pytest.skip(str(error))


def test_assumed_cycles_match_the_compiled_code(results):
    """Lines fitted to all windows: within 25 % for window 11, otherwise within a factor of 2."""
    rows = [row for row in results["loops"] if row["target"] == "sm_90"]
    assert len(rows) == 7 * 5
    for row in rows:
        main = row["radius"] == 5 and row["gradients"] == 1
        limit = 1.25 if main else 2
        for warps, known in zip((1, 2, 4), row["known_cycles"], strict=True):
            of_block, of_warp = row["known_beside"]
            for found, taken in (
                (row["cycles"], known),
                (row["warming"], row["known_warming"] * known),
                (row["beside"], of_block + of_warp * warps),
            ):
                found = found[warps - 1]
                assert found / limit < taken < found * limit, (row["kernel"], row["radius"], warps)


def test_the_chosen_design_is_the_faster_one_by_the_model(results):
    """The host assumes the same cycles for all targets: if designs are close, it may be wrong."""
    times: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for row in results["predictions"]:
        times.setdefault((row["device"], *row["shape"]), []).append(row)
    assert len(times) == len(DEVICES) * len(collect.SHAPES)
    for rows in times.values():
        chosen = next(row for row in rows if row["chosen"])
        assert chosen["seconds"] <= 1.15 * min(row["seconds"] for row in rows)
        assert chosen["kernel_seconds"] == pytest.approx(chosen["planned_seconds"], rel=0.3)


@pytest.mark.parametrize("target", [75, 90])
def test_the_main_kernels_do_not_spill(tools, target, tmp_path):
    sources.snapshot(tmp_path)
    found, cubin = build.compile_variants(tools, collect.PREDICTED, target, tmp_path)
    assert [found[variant].spilled for variant in collect.PREDICTED] == [0, 0, 0]
    if tools.cuobjdump is None:
        pytest.skip("cuobjdump was not found: the compiled code is not inspected")
    known = build.known(tools, collect.PREDICTED, tmp_path)
    most = {build.COMMON: (240, 370), build.LOSSES: (185, 285), build.GRADIENTS_KERNEL: (90, 180)}
    for name, code in tools.disassembled(cubin).items():
        variant = build.variant_of(name)
        counts = sass.count(tile_code.TileCode.of(variant.kernel, code).full)
        columns = known[variant].columns
        multiply_adds, instructions = most[variant.kernel]
        assert counts.multiply_adds / columns < multiply_adds
        assert counts.instructions / columns < instructions


def test_plans_are_those_of_the_library(tools, tmp_path):
    sources.snapshot(tmp_path)
    (h100,) = (d for d in DEVICES if d.name == "H100 SXM")
    queries = [
        Query(design, shape, h100)
        for shape in ((8, 3, 256, 256), (1, 1, 8192, 8192))
        for design in ("fastest", "one", "two")
    ]
    small, small_one, small_two, large, large_one, large_two = build.plans(tools, queries, tmp_path)
    assert isinstance(small_one, Plan)
    assert isinstance(small_two, Plan)
    assert [set(p.launches) for p in (small_one, small_two)] == [
        {build.COMMON},
        {build.LOSSES, build.GRADIENTS_KERNEL},
    ]
    assert small == min((small_one, small_two), key=lambda plan: plan.seconds)
    # A single h plane, 805 MB, does not fit the cache.
    assert large_two is None
    assert large == large_one


def test_a_missing_compiler_is_reported(tmp_path):
    command = [sys.executable, str(BENCH / "gpu_static.py"), "--quick"]
    result = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": str(tmp_path)}, check=False
    )
    assert result.returncode == 2
    assert "nvcc was not found" in result.stderr
