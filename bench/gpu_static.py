"""Report the resources and predicted times of the compiled GPU kernels, without a GPU.

python bench/gpu_static.py              # all variants and targets, 10 to 20 minutes
python bench/gpu_static.py --quick      # float32, window 11: 2 minutes
python bench/gpu_static.py --targets 90
python bench/gpu_static.py --cuda       # update the CUDA kernels; keep the rest of --out
python bench/gpu_static.py --triton     # update the Triton kernels; keep the rest of --out
python bench/gpu_static.py --out bench/static_analysis/figures.json --markdown docs/gpu_static.md

If Triton is installed, the report includes the Triton kernels; --triton compiles only these and
requires nothing else. The CUDA kernels require nvcc; counting their instructions also requires
cuobjdump and nvdisasm, which come with the CUDA toolkit (on PyPI: nvidia-cuda-cuobjdump,
nvidia-cuda-nvdisasm). Exits with status 1 if a kernel spills registers.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from checkout import ROOT, search_first
from static_analysis.build import MissingToolError, Tools
from static_analysis.collect import collect
from static_analysis.devices import TARGETS
from static_analysis.report import markdown, text


def main() -> int:
    """Parse the command line, report, and return the exit status."""
    arguments = _arguments()
    if arguments.from_json is not None:
        results = json.loads(arguments.from_json.read_text(encoding="utf-8"))
    else:
        results = {}
        one = arguments.cuda or arguments.triton
        if one and arguments.out is not None and arguments.out.exists():
            results = json.loads(arguments.out.read_text(encoding="utf-8"))
        if not arguments.triton:
            try:
                tools = Tools.find(arguments.nvcc, arguments.cuobjdump)
            except MissingToolError as error:
                print(f"gpu_static: {error}", file=sys.stderr)
                return 2
            if tools.cuobjdump is None:
                print("cuobjdump was not found: no instructions are counted, no times predicted")
            results |= collect(tools, arguments.targets, arguments.quick, _say)
        has_triton = importlib.util.find_spec("triton") is not None
        if arguments.triton or (has_triton and not arguments.cuda):
            search_first(ROOT)  # an installed lamp_kernels may have different kernels
            from static_analysis import triton

            results["triton"] = triton.collect(arguments.targets, triton.AMD, arguments.quick, _say)
        results = _rounded(results)
    print(text(results))
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"\nwrote {arguments.out}")
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(results), encoding="utf-8")
        print(f"wrote {arguments.markdown}")
    kernels = [
        *results.get("variants", []),
        *results.get("two_kernel", []),
        *results.get("triton", {}).get("variants", []),
    ]
    spilled = [kernel for kernel in kernels if kernel["spilled"]]
    if spilled:
        print(f"gpu_static: {len(spilled)} kernels spill registers", file=sys.stderr)
    return 1 if spilled else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only float32 and window 11")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--cuda", action="store_true", help="compile only the CUDA kernels")
    only.add_argument("--triton", action="store_true", help="compile only the Triton kernels")
    parser.add_argument(
        "--targets",
        type=int,
        nargs="+",
        choices=list(TARGETS),
        default=list(TARGETS),
        help="compute capabilities (all)",
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--markdown", type=Path, help="Markdown file to write")
    parser.add_argument("--from-json", type=Path, help="compile nothing; show these results")
    parser.add_argument("--nvcc", help="path of nvcc; default: from PATH or CUDA_HOME")
    parser.add_argument("--cuobjdump", help="path; default: from PATH, CUDA_HOME or pip")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
