"""The sources behind the static analysis: their digest, their constants and their targets."""

import json
import re
from pathlib import Path

import pytest
from static_analysis import sources
from static_analysis.devices import TARGETS

ROOT = Path(__file__).resolve().parents[2]


def test_reads_of_a_batch_sum():
    tiles = (1, 1024, 1025, 4096, 4097)
    assert [sources.batch_sum_reads(n) for n in tiles] == [1, 1, 1, 1, 2]


def test_targets_match_those_of_the_wheels():
    for file, variable in (("setup.py", "ALL_TARGETS = "), ("Makefile", "WHEEL_TARGETS \\?= ")):
        text = (ROOT / file).read_text(encoding="utf-8")
        (listed,) = re.findall(rf'^{variable}"?([\d.;]+)', text, re.MULTILINE)
        assert [int(number.replace(".", "")) for number in listed.split(";")] == list(TARGETS)


def test_constants_of_the_kernels():
    assert sources.constant("device.cuh", "kFlushEvery") == 32
    assert sources.constant("ssim_gradients.cuh", "kAhead") == 3
    assert sources.constant("plan.cu", "kLaunchSeconds") == 0.9e-6
    with pytest.raises(ValueError, match=r"csrc/cuda/plan\.cu defines no kNothing"):
        sources.constant("plan.cu", "kNothing")


def test_committed_figures_belong_to_the_current_kernels(tmp_path):
    """After any change to their code, run `make gpu-static`, which takes some minutes."""
    sources.snapshot(tmp_path)
    figures = ROOT / "bench" / "static_analysis" / "figures.json"
    results = json.loads(figures.read_text(encoding="utf-8"))
    assert results["sources"] == sources.digest(tmp_path)


def test_committed_figures_belong_to_the_current_triton_kernels():
    """After any change to their code, run `make triton-static`, which takes 20 minutes."""
    figures = ROOT / "bench" / "static_analysis" / "figures.json"
    results = json.loads(figures.read_text(encoding="utf-8"))
    assert results["triton"]["sources"] == sources.triton_digest()


KERNEL = """\
@triton.jit
def twice(x):
    \"\"\"2 x.\"\"\"
    return 2 * x
"""


def test_the_triton_digest_follows_kernels_and_tilings(tmp_path):
    def digest_with(name, text):
        (tmp_path / name).write_text(text)
        return sources.triton_digest(tmp_path)

    before = digest_with("a.py", KERNEL)
    assert digest_with("a.py", KERNEL.replace("2 x.", "Two x.") + "\n# and a comment\n") == before
    assert digest_with("a.py", "import triton\n" + KERNEL + "def launch(): pass\n") == before
    assert digest_with("a.py", KERNEL.replace("2 * x", "3 * x")) != before
    assert digest_with("a.py", KERNEL.replace("@triton.jit", "@kernel(launcher)")) != before
    assert digest_with("a.py", "SIDE = tl.constexpr(4)\n" + KERNEL) != before
    digest_with("a.py", KERNEL)
    tiled = digest_with("tiling.py", "PIXELS = 4\n")
    assert tiled != before
    assert digest_with("tiling.py", "PIXELS = 8\n") != tiled


CODE = """\
#include "a.h" // why
#define TWICE(x) \\
  2 * (x)
const char* at = "http://host/* */";  // a place
int f(int a) { return a - -a; }
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("// why", "/* for another\n reason */"),
        ("  // a place", ""),
        ("{ return", "{\n  // on a line of its own\n  return"),
        ("\\\n  2", "2"),
        ("a - -a", "a-   -a"),
    ],
)
def test_comments_and_line_breaks_leave_the_code(before, after):
    changed = CODE.replace(before, after)
    assert changed != CODE
    assert sources.code_of(changed) == sources.code_of(CODE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a - -a", "a --a"),
        ("int a", "inta"),
        ("TWICE(x)", "TWICE (x)"),
        ('"http://host/* */"', '"http://host"'),
        ('"http://host/* */"', '"http://host/*  */"'),
        ("(x)\n", "(x) "),
        (" // why\n#define", "// why\\\n#define"),
    ],
)
def test_changed_tokens_change_the_code(before, after):
    changed = CODE.replace(before, after)
    assert changed != CODE
    assert sources.code_of(changed) != sources.code_of(CODE)


def test_the_digest_follows_the_code_of_every_included_file(tmp_path):
    sources.snapshot(tmp_path)
    before = sources.digest(tmp_path)
    path = tmp_path / "csrc" / "cuda" / "centering.cuh"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"// a comment\n{text}", encoding="utf-8")
    assert sources.digest(tmp_path) == before
    path.write_text(f"int x;\n{text}", encoding="utf-8")
    assert sources.digest(tmp_path) != before
