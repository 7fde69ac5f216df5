"""Tests the emulation itself with small kernels: its results, its errors, sanitizers' reports."""

import host_build as build
import pytest

ORDERS = ("forward", "reverse", "random")
SOUND = (
    "indices",
    "barriers",
    "shuffles",
    "absent_lane_gives_nan",
    "unwritten_is_nan",
    "launches_follow_one_another",
    "limits",
    "error_and_on",
    "end_of_shared",
    "end_of_local",
    "neighbors",
    "written_again",
    "copies_ahead",
    "copies_over",
)
ERRORS = {
    "misaligned_copy": "a copy at a misaligned address",
    "nobody_asked": "the error of an earlier launch was never checked",
    "returned": "1 of 64 threads returned without reaching this barrier",
    "different_barriers": "threads of one block wait at different barriers",
    "barrier_and_shuffle": "deadlock: 16 threads wait at a barrier, 16 in a shuffle",
    "returned_lane": "the mask names lane 7, which has returned",
    "other_mask": "the mask names lane 0, which has returned",
    "not_in_mask": "the mask does not name the calling lane",
    "half_a_warp": "the mask names lane 16, which does not exist",
}
OVERRUNS = {
    "beyond_shared": "AddressSanitizer: heap-buffer-overflow",
    "before_shared": "AddressSanitizer: heap-buffer-overflow",
    "beyond_local": "index 4 out of bounds for type 'int [4]'",
    "beyond_global": "AddressSanitizer: heap-buffer-overflow",
}
RACES = (
    "neighbors_without_barrier",
    "written_again_without_barrier",
    "copies_over_without_barrier",
    "shuffle_is_no_barrier",
    "blocks_overlap",
    "blocks_overlap_after_barriers",
)


def built(tmp_path_factory, cuda_flags, flags):
    folder = tmp_path_factory.mktemp("self_test", numbered=True)
    build.copy(folder)
    return build.build_self_test(folder, cuda_flags, flags)


def each(program, names):
    for name in names:
        for order in ORDERS:
            done = build.run(program, [name, order])
            print(name, order, done.returncode, done.stdout, done.stderr)
            yield name, done


def check_sound(program, names=SOUND):
    for name, done in each(program, names):
        assert (done.returncode, done.stdout) == (0, ""), name


@pytest.mark.timeout(600)
def test_sound_kernels_and_errors(tmp_path_factory, cuda_flags):
    program = built(tmp_path_factory, cuda_flags, [])
    check_sound(program)
    assert build.run(program, ["orders", "forward"]).returncode == 0
    for name, done in each(program, ERRORS):
        assert done.returncode == 1, name
        assert ERRORS[name] in done.stdout, name


@pytest.mark.timeout(600)
def test_context_switches_without_assembly(tmp_path_factory, cuda_flags):
    check_sound(built(tmp_path_factory, cuda_flags, ["-DCUDA_HOST_UCONTEXT"]))


@pytest.mark.timeout(600)
def test_address_sanitizer_reports_only_overruns(tmp_path_factory, cuda_flags):
    program = built(tmp_path_factory, cuda_flags, build.ADDRESS)
    check_sound(program)
    for name, done in each(program, OVERRUNS):
        assert done.returncode not in (0, 2), name
        assert OVERRUNS[name] in done.stderr, name


@pytest.mark.timeout(600)
def test_thread_sanitizer_reports_only_races(tmp_path_factory, cuda_flags):
    program = built(tmp_path_factory, cuda_flags, build.THREAD)
    check_sound(program, [name for name in SOUND if name != "limits"])  # 65,535 blocks
    for name, done in each(program, RACES):
        assert done.returncode == build.FOUND, name
        assert "ThreadSanitizer: data race" in done.stderr, name
