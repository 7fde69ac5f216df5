"""Inserts known errors into the kernels, one at a time, and requires the tests to catch each.

    python tests/mutate/run.py [words in the names of the mutations to run]

The C++ driver must catch mutations of csrc/, and the tests that a mutation names must catch
mutations of lamp_kernels/. Works on a copy. The exit status is 1 if a mutation survives, if the
text it replaces does not occur exactly once, or if the unchanged sources fail.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cpu"))

import kernel_driver  # noqa: E402

ISA = "baseline"  # supported by every machine; mutated code is the same for all instruction sets
RADII = (2, 5)
ARGUMENTS = ["--radii", ",".join(map(str, RADII)), "--cases", "250", "--stop", "1"]
TIME_LIMIT = 120  # seconds; a mutation may cause an endless loop


def main(words: list[str]) -> int:
    mutations = json.loads((HERE / "mutations.json").read_text())
    wanted = [m for m in mutations if not words or any(word in m["name"] for word in words)]
    stale = [m["name"] for m in mutations if (ROOT / m["file"]).read_text().count(m["text"]) != 1]
    for name in stale:
        print(f"STALE     {name}: the text it replaces must occur exactly once in the sources")
    with tempfile.TemporaryDirectory() as name:
        sound = Path(name) / "sound"
        copy(sound)
        complaint = complaint_of_driver(sound)
        tested = {tuple(m["tests"]) for m in wanted if "tests" in m}
        complaint = complaint or next(
            filter(None, (complaint_of_tests(sound, list(t)) for t in tested)), ""
        )
        if complaint:
            print(f"The unchanged sources fail: {complaint}")
            return 1
        survivors = [m["name"] for m in wanted if m["name"] not in stale and survives(sound, m)]
    print(f"{len(wanted)} mutations, {len(survivors)} survived, {len(stale)} stale")
    return int(bool(survivors or stale))


def copy(folder: Path) -> None:
    folder.mkdir()
    kernel_driver.copy(folder)
    kernel_driver.keep_radii(folder, RADII)
    shutil.copytree(ROOT / "lamp_kernels", folder / "lamp_kernels")
    shutil.copytree(ROOT / "tests", folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)


def survives(sound: Path, mutation: dict) -> bool:
    """Build a mutated copy next to the sound one and print what catches it."""
    start = time.monotonic()
    folder = sound.with_name("mutated")
    shutil.copytree(sound, folder)  # with its object files, most of which stay valid
    path = folder / mutation["file"]
    path.write_text(path.read_text().replace(mutation["text"], mutation["replacement"]))
    tests = mutation.get("tests")
    caught_by = complaint_of_tests(folder, tests) if tests else complaint_of_driver(folder)
    shutil.rmtree(folder)
    took = time.monotonic() - start
    outcome = "caught" if caught_by else "SURVIVED"
    line = f"{outcome:9} {took:5.1f} s  {mutation['name']:45} {caught_by or mutation['breaks']}"
    print(line, flush=True)
    return not caught_by


def complaint_of_driver(folder: Path) -> str:
    """The first failure of the driver, or an empty string."""
    driver = kernel_driver.build(folder, [ISA], flags=["-O1"])
    try:
        done = kernel_driver.run(driver, ISA, ARGUMENTS, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return f"it ran for more than {TIME_LIMIT} s"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAIL ")]
    return lines[0].removeprefix("FAIL ") if lines else f"exit status {done.returncode}"


def complaint_of_tests(folder: Path, tests: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_LIMIT,
    )
    if done.returncode == 0:
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    # Tests that cannot run do not count as catching the mutation.
    if done.returncode != 1 or not failed:
        raise RuntimeError(done.stdout + done.stderr)
    return failed[0].removeprefix("FAILED ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
