"""Kernels broken in one known way after another: each must be reported by what should see it."""

import json
import shutil
from pathlib import Path

import host_build as build
import pytest

MUTATIONS = json.loads((Path(__file__).parent / "mutations.json").read_text())
RADIUS = 2
TOOLS = {
    "thread": (build.THREAD, ["--only", "few", "--ways", "1"], "ThreadSanitizer: data race"),
    "address": (
        ["-fsanitize=address", "-g1", *build.CALLS],
        ["--only", "few", "--ways", "1"],
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "alignment": (
        ["-fsanitize=alignment", "-fno-sanitize-recover=alignment"],
        ["--only", "shapes", "--ways", "1"],
        "misaligned address",
    ),
    "comparison": ([], ["--only", "shapes", "--ways", "1", "--stop", "1"], "FAIL "),
    "far": ([], ["--only", "far", "--ways", "1", "--stop", "1"], ""),  # or it crashes
    "scaling": ([], ["--only", "scaling", "--stop", "1"], "FAIL scaling"),
}


@pytest.fixture(scope="module")
def half_built(tmp_path_factory, cuda_flags):
    """A copy of the sources, with those parts of the program compiled that no mutation changes."""
    path = tmp_path_factory.mktemp("sound", numbered=True)
    build.copy(path)
    build.compile_driver(path, cuda_flags)
    return path


@pytest.fixture
def folder(half_built, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(half_built, path)
    yield path
    shutil.rmtree(path)  # tens of megabytes


def outcome(folder, cuda_flags, tool):
    flags, arguments, _ = TOOLS[tool]
    driver = build.build_driver(folder, cuda_flags, flags, [RADIUS])
    done = build.run(driver, ["--radii", str(RADIUS), *arguments])
    print(done.stdout[-3000:], done.stderr[:3000])
    return done


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tool", TOOLS)
def test_the_sources_as_they_are(folder, cuda_flags, tool):
    assert outcome(folder, cuda_flags, tool).returncode == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m["name"].replace(" ", "-"))
def test_caught(folder, cuda_flags, mutation):
    path = folder / mutation["file"]
    text = path.read_text()
    count = text.count(mutation["text"])
    assert count == 1, f"what it replaces stands in {mutation['file']} {count} times, not once"
    path.write_text(text.replace(mutation["text"], mutation["replacement"]))
    done = outcome(folder, cuda_flags, mutation["by"])
    said = TOOLS[mutation["by"]][2]
    assert done.returncode != 0, f"survived: {mutation['breaks']}"
    assert said in done.stdout + done.stderr
