"""Lines of a study's results file for tests, like those that runs write."""

from __future__ import annotations

from dataclasses import asdict

from uad.study.spec import RunSpec

SCORE = "mse mean"


def result(loss, normal_class=0, seed=0, auroc=0.8, **options):
    """A line like those that runs write."""
    spec = RunSpec("fashion-mnist", normal_class, loss, seed, **options)
    errors = {"mse": 0.01, "l1": 0.05, "ssim": 0.1}
    return asdict(spec) | {
        "image_auroc": {SCORE: auroc},
        "error_normal": errors,
        "error_anomalous": {name: 2 * auroc * error for name, error in errors.items()},
        "seconds": 6.0,
        "torch": "2.13.0",
    }
