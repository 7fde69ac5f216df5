"""Inserts known errors into the kernels; the tool responsible must report each of them."""

import json
import shutil
from pathlib import Path

import host_build as build
import kernel_driver
import pytest

MUTATIONS = json.loads((Path(__file__).parent / "mutations.json").read_text())
RADIUS = 2
TOOLS = {
    "thread": (build.THREAD, ["--only", "few", "--ways", "1"], "ThreadSanitizer: data race"),
    "address": (
        ["-fsanitize=address", "-g1", *kernel_driver.CALLS],
        ["--only", "few", "--ways", "1"],
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "alignment": (
        ["-fsanitize=alignment", "-fno-sanitize-recover=alignment"],
        ["--only", "shapes", "--ways", "1"],
        "misaligned address",
    ),
    "comparison": ([], ["--only", "shapes", "--ways", "1", "--stop", "1"], "FAIL "),
    "scenes": ([], ["--only", "scenes", "--ways", "1", "--stop", "1"], "FAIL "),
    "far": ([], ["--only", "far", "--ways", "1", "--stop", "1"], ""),  # or it crashes
    "scaling": ([], ["--only", "scaling", "--stop", "1"], "FAIL scaling"),
    "sums": ([], ["--only", "sums", "--ways", "2", "--stop", "1"], ""),  # or it crashes
}

SLOW = ("alignment",)  # a build of its own, to run every shape


def marked(value, tool, marks, **named):
    """A parameter that is also left to `make thorough` if its tool is one of SLOW."""
    slow = [pytest.mark.thorough("the emulation checks the alignment of copies, too")]
    return pytest.param(value, marks=marks or slow * (tool in SLOW), **named)


def flags_of(tool):
    """No optimization: half the compile time, and the run time is short anyway."""
    return [*TOOLS[tool][0], "-O0"]


@pytest.fixture(scope="module")
def copy_for(tmp_path_factory, cuda_flags):
    """copy_for(tool, path) copies compiled sources, so a mutation recompiles only changed files."""
    sound = tmp_path_factory.mktemp("sound", numbered=True)
    build.copy(sound)

    def copy(tool, path):
        build.build_driver(sound, cuda_flags, flags_of(tool), [RADIUS])
        shutil.copytree(sound, path)

    return copy


def outcome(folder, cuda_flags, tool):
    _, arguments, _ = TOOLS[tool]
    driver = build.build_driver(folder, cuda_flags, flags_of(tool), [RADIUS])
    done = build.run(driver, ["--radii", str(RADIUS), *arguments])
    shutil.rmtree(folder)  # tens of megabytes
    print(done.stdout[-3000:], done.stderr[:3000])
    return done


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tool", [marked(tool, tool, []) for tool in TOOLS])
def test_unchanged_sources_pass(copy_for, tmp_path, cuda_flags, tool):
    folder = tmp_path / "copy"
    copy_for(tool, folder)
    assert outcome(folder, cuda_flags, tool).returncode == 0


def test_the_text_of_every_mutation_occurs_once(tmp_path):
    folder = tmp_path / "copy"
    build.copy(folder)
    for mutation in MUTATIONS:
        count = (folder / mutation["file"]).read_text().count(mutation["text"])
        assert count == 1, f"{mutation['text']!r} in {mutation['file']}: {count} times"


def cases():
    """The mutations by name; all but the first of each tool are left to `make thorough`."""
    tested = set()
    for mutation in MUTATIONS:
        marks = [pytest.mark.thorough("another mutation")] if mutation["by"] in tested else []
        tested.add(mutation["by"])
        yield marked(mutation, mutation["by"], marks, id=mutation["name"].replace(" ", "-"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", list(cases()))
def test_a_mutation_is_reported(copy_for, tmp_path, cuda_flags, mutation):
    folder = tmp_path / "copy"
    copy_for(mutation["by"], folder)
    path = folder / mutation["file"]
    path.write_text(path.read_text().replace(mutation["text"], mutation["replacement"]))
    done = outcome(folder, cuda_flags, mutation["by"])
    said = TOOLS[mutation["by"]][2]
    assert done.returncode != 0, f"survived: {mutation['breaks']}"
    assert said in done.stdout + done.stderr
