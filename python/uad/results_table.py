"""The results of a run as plain text for the terminal."""

from __future__ import annotations

from typing import Any

from uad.table import align

COLUMNS = (
    "loss",
    "image AUROC",
    "pixel AUROC",
    "AUPRO",
    "AP",
    "PSNR normal",
    "s/step",
    "loss time / step time",
)


def results_table(metrics: dict[str, Any]) -> str:
    """A table with a row per loss, then one with a row per defect kind.

    metrics: the content of metrics.json.
    """
    arms: dict[str, Any] = metrics["arms"]
    rows = []
    for name, arm in arms.items():
        evaluation = arm["evaluation"]
        rows.append(
            (
                name,
                number(evaluation["image_auroc"], ".4f"),
                number(evaluation["pixel_auroc"], ".4f"),
                number(evaluation["aupro"], ".4f"),
                number(evaluation["image_ap"], ".4f"),
                number(evaluation["psnr_normal"], ".2f"),
                number(arm["seconds_per_step"], ".4f"),
                number(arm["loss_share"], ".1%"),
            )
        )
    kinds = next(iter(arms.values()))["evaluation"]["per_kind"]
    kind_rows = [
        (
            kind,
            *(
                number(arm["evaluation"]["per_kind"][kind]["image_auroc"], ".4f")
                for arm in arms.values()
            ),
        )
        for kind in kinds
    ]
    return (
        f"{align(COLUMNS, rows)}\n\nimage AUROC by kind of defect\n"
        f"{align(('kind', *arms), kind_rows)}"
    )


def number(value: float | None, form: str) -> str:
    """`value` formatted, a dash for None."""
    return "-" if value is None else format(value, form)
