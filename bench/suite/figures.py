"""Formats figures for tables; does not import PyTorch, so bench/device/table.py can use it."""

import math


def three(value: float) -> str:
    """Format with three significant digits, without an exponent, as a whole number from 100 on."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"
