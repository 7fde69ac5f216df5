"""Compares the CPU kernels with the textbook code in C++, under address and UB sanitizers.

Each test builds the driver for one instruction set and a few window radii, because compiling takes
nearly all of the time. With those of `make thorough`, the tests cover all radii. aarch64 is tested
by `make test-aarch64`.
"""

import shutil
from pathlib import Path

import kernel_driver as build
import pytest

CPU = Path("/proc/cpuinfo")  # on Linux
HAS_AVX512 = CPU.exists() and "avx512dq" in CPU.read_text()
CASES = 120  # random cases, in addition to the scenes and the half-precision values
SANITIZED = ["-O1", *build.SANITIZE, *build.CALLS]


def volume_radius(radii):
    """The kernels of volumes take longest to compile, so each test has them for one radius."""
    return radii[len(radii) // 2]


def check(driver, isa, radii):
    arguments = ["--radii", ",".join(map(str, radii)), "--cases", str(CASES)]
    arguments += ["--volume-radii", str(volume_radius(radii))]
    done = build.run(driver, isa, arguments)
    print(done.stdout, done.stderr)
    assert f"instruction set: {isa}\n" in done.stdout
    assert done.returncode == 0


def needs(program):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")


@pytest.fixture
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("driver", numbered=True)
    build.copy(path)
    yield path
    shutil.rmtree(path)  # tens of megabytes


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("isa", "radii"),
    [
        ("avx512", (5,)),
        ("avx2", (1, 7)),
        # The same code for shorter vectors; test-aarch64 runs it without sanitizers.
        pytest.param("baseline", (2,), marks=pytest.mark.thorough("the shortest vectors")),
        pytest.param("avx2", (3, 4, 6), marks=pytest.mark.thorough("other windows")),
    ],
)
def test_sanitized(folder, isa, radii):
    needs("g++")
    flags = SANITIZED
    probe = build.build(folder, [], flags=flags)
    lacking = build.run(probe, isa, ["--only", "nothing"])
    if lacking.returncode:
        pytest.skip(f"this machine has no {isa}: {lacking.stderr.strip().splitlines()[-1]}")
    build.keep_radii(folder, radii, [volume_radius(radii)])
    check(build.build(folder, [isa], flags=flags), isa, radii)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "radii",
    [
        pytest.param(
            (6,), marks=[pytest.mark.thorough("AVX-512 has such vectors")] if HAS_AVX512 else []
        )
    ],
)
def test_64_byte_vectors_without_avx512(folder, radii):
    needs("g++")
    build.widen_baseline(folder)
    build.keep_radii(folder, radii, [volume_radius(radii)])
    driver = build.build(folder, ["baseline"], flags=SANITIZED)
    check(driver, "baseline", radii)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("compiler", ["clang++", "g++-10", "g++-11"])
def test_other_compilers(folder, compiler):
    needs(compiler)
    radii = (1, 5)
    build.keep_radii(folder, radii, [volume_radius(radii)])
    check(build.build(folder, ["baseline"], compiler=compiler, flags=["-O1"]), "baseline", radii)


@pytest.mark.timeout(600)
def test_shuffles_with_the_builtin_of_older_gcc(folder):
    """GCC before 12 has only __builtin_shuffle, which later releases keep and clang never had."""
    needs("g++")
    has = r"^#if __has_builtin\(__builtin_shufflevector\)$"
    build.replace(folder / "csrc/cpu/vectors.h", has, "#if 0")
    radii = (2, 7)
    build.keep_radii(folder, radii, [volume_radius(radii)])
    check(build.build(folder, ["baseline"], flags=["-O1"]), "baseline", radii)


def test_an_object_is_shared_only_by_identical_sources(tmp_path, monkeypatch):
    needs("g++")
    monkeypatch.setattr(build, "shared", tmp_path / "objects")
    compiled = []
    call = build.call

    def recorded_call(*given):
        compiled.append(given[1].name)
        return call(*given)

    monkeypatch.setattr(build, "call", recorded_call)

    def object_of(name, number):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "some.cpp").write_text('#include "some.h"\nint some() { return NUMBER; }\n')
        (folder / "some.h").write_text(f"#define NUMBER {number}\n")
        (target,) = build.compile_all(folder, {"some.cpp": []}, "g++", [])
        return (folder / target).read_bytes()

    first = object_of("first", 1)
    assert object_of("same", 1) == first
    assert compiled == ["first"]
    assert object_of("other", 2) != first
    assert compiled == ["first", "other"]
    assert object_of("same", 2) != first  # the object it copied before is out of date
    assert compiled == ["first", "other", "same"]
    assert object_of("again", 1) == first
    assert compiled == ["first", "other", "same"]
