"""Logprobs, gaps and other measured numbers as people read them: alike on every page, line and log."""

import math


def significant(value: float, *, signed: bool = False, like: float | None = None) -> str:
    """Three significant figures, and three decimals at most: less than half a thousandth of a nat is rounding.

    `0.432`, `1.53`, `12.3`, `1234`; `?` for what is no finite number. `like` is a value with whose decimals it is
    written, such as the difference that a standard error belongs to.
    """
    if not math.isfinite(value):
        return "?"
    size = abs(value if like is None else like)
    size = float(f"{size:.2e}") if math.isfinite(size) else 0.0  # 9.996 is written 10.0
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"  # 0.0: no -0
