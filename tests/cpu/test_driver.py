"""The CPU kernels against the textbook in C++, under the address and undefined sanitizers.

Each test builds the driver for one instruction set and a few window radii: compiling takes nearly
all of the time. All radii are in one test or another.
"""

import shutil

import kernel_driver as build
import pytest

CASES = 120  # random ones; the scenes and the half types come on top


def check(driver, isa, radii, arguments=(), emulator=()):
    done = build.run(
        driver,
        isa,
        ["--radii", ",".join(map(str, radii)), "--cases", str(CASES), *arguments],
        emulator=emulator,
    )
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
    ("isa", "radii"), [("v4", (3, 5)), ("v3", (1, 4, 7)), ("baseline", (2, 5))]
)
def test_sanitized(folder, isa, radii):
    needs("g++")
    flags = ["-O1", *build.SANITIZE]
    probe = build.build(folder, [], flags=flags)
    lacking = build.run(probe, isa, ["--only", "nothing"])
    if lacking.returncode:
        pytest.skip(f"this machine has no {isa}: {lacking.stderr.strip().splitlines()[-1]}")
    build.keep_radii(folder, radii)
    check(build.build(folder, [isa], flags=flags), isa, radii)


@pytest.mark.timeout(600)
def test_vectors_of_64_bytes_on_any_machine(folder):
    needs("g++")
    radii = (3, 6)
    build.widen_baseline(folder)
    build.keep_radii(folder, radii)
    driver = build.build(folder, ["baseline"], flags=["-O1", *build.SANITIZE])
    check(driver, "baseline", radii)


@pytest.mark.timeout(600)
def test_aarch64(folder):
    compiler, emulator = "aarch64-linux-gnu-g++", "qemu-aarch64"
    needs(compiler)
    needs(emulator)
    radii = (2, 5)
    build.keep_radii(folder, radii)
    driver = build.build(folder, ["baseline"], compiler=compiler, flags=["-O1"], link=["-static"])
    few = ["--cases", "12", "--only", "cases"]  # the emulator takes ten times as long
    check(driver, "baseline", radii, few, [emulator])
    check(driver, "baseline", radii, ["--only", "halves"], [emulator])


@pytest.mark.timeout(600)
def test_clang(folder):
    compiler = "clang++"
    needs(compiler)
    radii = (1, 5)
    build.keep_radii(folder, radii)
    check(build.build(folder, ["baseline"], compiler=compiler, flags=["-O1"]), "baseline", radii)
