"""Compares the CUDA kernels, run on the CPU, with the textbook code, also under sanitizers.

A call must return the same bits whether blocks and threads run in forward, reverse or random order.
"""

import shutil

import host_build as build
import pytest


@pytest.fixture
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cuda_driver", numbered=True)
    build.copy(path)
    yield path
    shutil.rmtree(path)  # tens of megabytes


def check(driver, *arguments):
    done = build.run(driver, arguments)
    print(done.stdout, done.stderr[-10000:])
    assert done.returncode == 0
    assert done.stdout.endswith("0 failures\n")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "radii",
    [
        # A thread has one or two columns by the radius: each kernel has both among these.
        (2, 7),
        pytest.param((1, 2, 3, 4, 5, 6, 7), marks=pytest.mark.thorough("the other windows")),
    ],
    ids=str,
)
def test_every_variant(folder, cuda_flags, radii):
    driver = build.build_driver(folder, cuda_flags, (), None if len(radii) == 7 else radii)
    these = ["--radii", ",".join(map(str, radii))]
    check(driver, "--only", "shapes", *these, "--ways", "2")  # the cases run in all three orders
    check(driver, "--only", "cases", *these, "--cases", "60", "--work", "3000000")
    for others in ("halves", "scenes", "planes", "far", "scaling", "sums"):
        check(driver, "--only", others, *these)


@pytest.mark.timeout(600)
def test_address_and_undefined_sanitizer(folder, cuda_flags):
    # For radius 5, a thread computes one column in float64 and two in float32. One way is enough:
    # no address depends on the order of threads.
    driver = build.build_driver(folder, cuda_flags, build.ADDRESS, (5,))
    few = ["--radii", "5", "--ways", "1"]
    check(driver, "--only", "shapes", *few)
    check(driver, "--only", "cases", "--cases", "30", "--work", "1000000", *few)
    check(driver, "--only", "scaling")
    check(driver, "--only", "sums", *few)


@pytest.mark.timeout(600)
@pytest.mark.thorough("the widest window; radius 2 is in test_mutations.py")
def test_thread_sanitizer(folder, cuda_flags):
    # One way is enough: ThreadSanitizer finds races independently of the order of threads. With
    # radius 2, test_mutations.py runs the unchanged sources, which must pass.
    driver = build.build_driver(folder, cuda_flags, build.THREAD, (7,))
    check(driver, "--only", "few", "--radii", "7", "--ways", "1")
