"""README code runs, and files, targets and links named in README and CONTRIBUTING exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "CONTRIBUTING.md")}


def test_python_blocks_run_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXTS["README.md"], flags=re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert "within [0, 1]" in capsys.readouterr().out


@pytest.mark.parametrize("document", TEXTS)
def test_named_files_exist(document):
    folders = "tests|bench|python|lamp_kernels|csrc|docs|examples"
    named = set(re.findall(rf"(?<![\w/-])(?:{folders})/[\w/.-]*\w", TEXTS[document]))
    assert len(named) >= 4
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("document", TEXTS)
def test_named_make_targets_exist(document):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z0-9-]+)", TEXTS[document]))
    assert "test" in targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("document", TEXTS)
def test_links_to_headings_and_files_resolve(document):
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", TEXTS[document]):
        assert (ROOT / path).exists(), path
        if anchor:
            assert anchor in anchors(TEXTS[path or document])


def anchors(text):
    """The anchors that GitHub generates from the headings."""
    without_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", without_code, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
