"""`python -m lamp_kernels`: what is installed, what computes on each device, and a self-check."""

import argparse
import sys
from collections.abc import Sequence

import torch

from lamp_kernels import backends, self_check


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report and run the self-check. Returns 0 if every check passed, else 1."""
    argparse.ArgumentParser(
        prog="python -m lamp_kernels",
        description="Report what is installed and what computes on each device; run a self-check.",
    ).parse_args(arguments)
    print(backends.report())
    try:
        for device in backends.devices():
            sample = torch.empty(0, device=device)
            choice = backends.resolve(None, sample)
            print(f"losses of {device} tensors are computed by: {choice}")
            for name, reason in backends.skipped_backends(sample).items():
                print(f"  not by {name}: {reason}")
    except ValueError as error:
        print(f"every loss without a backend argument raises: {error}")
        return 1
    print("self-check:")
    count = failures = 0
    for check in self_check.run():
        count += 1
        failures += not check.passed
        verdict = "ok" if check.passed else f"FAILED, expected {check.expected:.7g}"
        print(f"  {check.name:<54} {check.found:>12.7g}  {verdict}")
    print("all checks passed" if failures == 0 else f"{failures} of {count} checks failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
