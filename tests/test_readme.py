"""The README's code runs, and the files and commands that it names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert "within [0, 1]" in capsys.readouterr().out


def test_files_named_exist():
    named = set(
        re.findall(r"(?<![\w-])(?:tests|bench|python|lamp_kernels|csrc|docs)/[\w/.-]*\w", TEXT)
    )
    assert len(named) >= 4
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_make_targets_named_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"\bmake ([a-z0-9-]+)", TEXT)
    assert {"train", "test"} <= set(targets)
    for target in set(targets) - {"and"}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
