"""Compare this library with other packages, interleaved in one process.

python bench/run.py                                # everything, about 12 minutes
python bench/run.py --quick                        # about a minute
python bench/run.py --only lamp_kernels pytorch    # contestants with these name prefixes
python bench/run.py --readme bench/results         # no measurement: update README and plots
"""

import argparse
from pathlib import Path

import torch
from checkout import PYTHON, ROOT, search_first
from suite import results as files
from suite.cases import FULL, QUICK
from suite.contestants import CONTESTANTS
from suite.table import markdown, text, update_readme


def main() -> None:
    """Parse the command line, then measure or update the README."""
    arguments = _arguments()
    if arguments.readme is not None:
        _write_readme(arguments.readme, arguments.root)
        return
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    search_first(PYTHON)  # for the network of the training step
    results = files.collect(QUICK if arguments.quick else FULL, arguments.only)
    files.write(results, arguments.out)
    print(text(results))
    print(f"\nwrote {arguments.out}")
    if arguments.plots is not None:
        from suite.plots import draw  # imported here because only plots need matplotlib

        for name, _ in draw(results, arguments.plots):
            print(f"wrote {arguments.plots / name}")


def _write_readme(folder: Path, root: Path) -> None:
    """Write docs/bench-*.png and the README's block from the newest committed results."""
    from suite.plots import draw

    results = files.newest(folder)
    drawn = draw(results, root / "docs")
    plots = [(f"docs/{name}", description) for name, description in drawn]
    block = markdown(results, plots, files.every(folder))
    changed = update_readme(root / "README.md", block)
    print(f"README.md {'changed' if changed else 'unchanged'}, {len(drawn)} plots in docs/")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small shapes and few rounds")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="name prefixes of contestants: "
        + "; ".join(contestant.name for contestant in CONTESTANTS),
    )
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's choice")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench/results.json"), help="default: %(default)s"
    )
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="also draw plots here")
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FOLDER",
        help="measure nothing; update README and docs/ from the newest results in FOLDER",
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with README.md and docs/")
    arguments = parser.parse_args()
    if arguments.threads is not None and arguments.threads < 1:
        parser.error(f"--threads must be at least 1, got {arguments.threads}")
    if arguments.only is not None and not any(
        contestant.name.startswith(tuple(arguments.only)) for contestant in CONTESTANTS
    ):
        parser.error(f"--only must match a contestant, got {' '.join(arguments.only)}")
    return arguments


if __name__ == "__main__":
    main()
