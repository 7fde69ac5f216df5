"""`python -m lamp_kernels`: what is installed, what would compute, and does it compute right."""

import sys

from lamp_kernels import backends, self_check


def main() -> int:
    """Print the report and the self-check; 0 if every check passed, else 1."""
    print(backends.report())
    print("self-check:")
    failures = 0
    for check in self_check.run():
        failures += not check.passed
        verdict = "ok" if check.passed else f"FAILED, expected {check.expected:.7g}"
        print(f"  {check.name:<54} {check.found:>12.7g}  {verdict}")
    print("all checks passed" if failures == 0 else f"{failures} checks failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
