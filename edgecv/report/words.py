"""How figures become words: one place, so that every form of the report says the same."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable

from edgecv.core.figures import Interval, Outcome, Verdict
from edgecv.core.kinds import lower_is_better, metric_unit

__all__ = [
    "ABSENT",
    "MINUS",
    "SYMBOLS",
    "TIMES",
    "budget_limit",
    "budget_name",
    "budget_value",
    "bytes_text",
    "change_text",
    "clean",
    "count_text",
    "db_text",
    "drop_interval_text",
    "drop_text",
    "drop_unit",
    "drops_unit",
    "interval_text",
    "is_minimum",
    "metric_interval_text",
    "metric_name",
    "metric_text",
    "ms_text",
    "outcome_word",
    "points_text",
    "quantity_text",
    "ratio_text",
    "seconds_text",
    "short",
    "verdict_text",
]

ABSENT = "\u2013"
"""Stands where a figure was not measured."""

MINUS = "\u2212"
TIMES = "\u00d7"

SYMBOLS: dict[str, str] = {"pass": "✓", "fail": "✗", "inconclusive": "?", "not-checked": ABSENT, "deferred": "◌"}
"""A sign beside each outcome's word, so that colour never carries the meaning alone."""

_BUDGETS = {
    "size_mb": "size",
    "size_ratio": "size ratio",
    "soak.fps.min": "sustained rate",
    "soak.mj_per_frame": "energy per frame",
}
_SHARES = {"top1": "top-1", "top5": "top-5"}
_CALLED = {**_SHARES, "psnr": "PSNR", "ssim": "SSIM"}


def clean(text: str, *, lines: bool = False) -> str:
    """``text`` without control and direction-changing characters; line breaks stay only with ``lines``.

    A label from a file must not be able to move a terminal's cursor or to turn text around.
    """
    kept = []
    for char in text:
        if char in "\n\t":
            kept.append(char if lines else " ")
        elif unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or char == "\u200d":
            kept.append(char)
    return "".join(kept)


def short(text: str, width: int) -> str:
    """``text`` cut to ``width`` characters, with an ellipsis where something is missing."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def count_text(count: int, noun: str, plural: str = "") -> str:
    """``1 target``, ``3 targets``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def metric_name(metric: str) -> str:
    """What people call a metric: ``top-1`` for ``top1``."""
    return _CALLED.get(metric, metric)


def metric_text(metric: str, value: float | None) -> str:
    """A metric's value: per cent for shares such as top-1, with its unit where it has one, else four decimals."""
    if value is None:
        return ABSENT
    if metric in _SHARES:
        return f"{value * 100:.2f} %"
    unit = metric_unit(metric)
    return f"{value:.4f}" if unit == "share" else f"{value:.2f} {unit}"


def interval_text(interval: Interval | None, *, percent: bool) -> str:
    """``97.10 to 98.60``; "" where there is none."""
    if interval is None:
        return ""
    scale = 100.0 if percent else 1.0
    digits = 2 if percent else 4
    low, high = (_signed_zero(f"{bound * scale:.{digits}f}") for bound in (interval.low, interval.high))
    return f"{low} to {high}"


def metric_interval_text(metric: str, interval: Interval | None) -> str:
    """An interval of a metric's value, in the numbers of `metric_text` without the unit; "" where there is none."""
    if metric_unit(metric) == "share":
        return interval_text(interval, percent=metric in _SHARES)
    return "" if interval is None else _in_unit(interval)


def drop_unit(metric: str) -> str:
    """What losses of a metric are told in: ``points`` (of a share), or the metric's own unit."""
    unit = metric_unit(metric)
    return "points" if unit == "share" else unit


def drops_unit(metrics: Iterable[str]) -> str:
    """The unit over a column of losses: that of all ``metrics``, ``points`` where they differ."""
    units = {drop_unit(metric) for metric in metrics}
    return units.pop() if len(units) == 1 else "points"


def drop_text(metric: str, value: float | None, *, column: str = "") -> str:
    """The loss of a metric, without its unit where that is ``column``'s; positive is a loss."""
    unit = drop_unit(metric)
    if value is None:
        return ABSENT
    text = points_text(value) if unit == "points" else _signed_zero(f"{value:.2f}")
    return text if unit == column else f"{text} {unit}"


def drop_interval_text(metric: str, interval: Interval | None) -> str:
    """An interval of the loss of a metric, in the numbers of `drop_text` without the unit; "" where there is none."""
    if drop_unit(metric) == "points":
        return interval_text(interval, percent=True)
    return "" if interval is None else _in_unit(interval)


def _in_unit(interval: Interval) -> str:
    return " to ".join(_signed_zero(f"{bound:.2f}") for bound in (interval.low, interval.high))


def points_text(value: float | None) -> str:
    """A difference of shares in percentage points, such as ``0.28``; positive is a loss."""
    return ABSENT if value is None else _signed_zero(f"{value * 100:.2f}")


def ms_text(value: float | None) -> str:
    """Milliseconds with three figures that count, without the unit."""
    if value is None:
        return ABSENT
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    return f"{value:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3}f}"


def bytes_text(count: int | None) -> str:
    """A file size in powers of ten, as budgets are: ``812 B``, ``84.3 kB``, ``0.21 MB``, ``1.20 GB``."""
    if count is None:
        return ABSENT
    if count < 1000:
        return f"{count} B"
    if count < 100_000:
        return f"{count / 1e3:.1f} kB"
    if count < 999_500_000:
        return f"{count / 1e6:.{2 if count < 99_950_000 else 0}f} MB"
    return f"{count / 1e9:.2f} GB"


def ratio_text(ratio: float | None) -> str:
    """``0.27`` with a times sign: a ratio of sizes."""
    return ABSENT if ratio is None else f"{ratio:.2f}{TIMES}"


def seconds_text(seconds: float) -> str:
    """``0.4 s``, ``38 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if not math.isfinite(seconds):
        return str(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def db_text(value: float | None) -> str:
    """Decibels; infinite means that both outputs are equal."""
    if value is None:
        return ABSENT
    return "∞ (equal)" if value == math.inf else f"{value:.1f} dB"


def change_text(before: float, after: float) -> str:
    """A relative change in per cent with its sign, such as ``+38.1 %``."""
    if before == 0:
        return "no change" if after == 0 else "from 0"
    change = (after - before) / abs(before) * 100
    text = f"{abs(change):.1f} %"
    return "0.0 %" if text == "0.0 %" else ("+" if change > 0 else MINUS) + text


def quantity_text(value: float | None, unit: str) -> str:
    """A figure with its unit; ``share`` as per cent, ``ratio`` as so many times, ``points`` of a share as points."""
    if value is None:
        return "not measured"
    if not math.isfinite(value):
        return "no limit" if value > 0 else str(value)
    if unit == "ms":
        return f"{ms_text(value)} ms"
    if unit == "bytes":
        return bytes_text(round(value))
    if unit == "share":
        return f"{value * 100:.2f} %"
    if unit == "ratio":
        return ratio_text(value)
    if unit == "points":
        return f"{points_text(value)} points"
    if unit == "dB":
        return _signed_zero(f"{value:.2f} dB")
    return f"{value:.3g} {unit}".rstrip()


def budget_name(verdict: Verdict) -> str:
    """What people call a budget: ``top-1 drop`` for ``accuracy.top1.max_drop``, ``p95`` for ``latency.p95_ms``."""
    parts = clean(verdict.budget).split(".")
    if parts[0] == "accuracy" and len(parts) == 3:
        return metric_name(parts[1]) + (_loss_word(parts[1]) if parts[2] == "max_drop" else "")
    if parts[0] == "latency" and len(parts) == 2:
        return parts[1].removesuffix("_ms")
    return _BUDGETS.get(verdict.budget, clean(verdict.budget))


def _loss_word(metric: str) -> str:
    return " increase" if lower_is_better(metric) else " drop"


def budget_value(verdict: Verdict) -> str:
    """The figure that a budget judges, with its unit."""
    return quantity_text(verdict.value, _budget_unit(verdict))


def budget_limit(verdict: Verdict) -> str:
    """A budget's limit without idle zeros: ``5 ms``; ``none`` where it is not set."""
    if not math.isfinite(verdict.limit):
        return "none"
    number, space, unit = quantity_text(verdict.limit, _budget_unit(verdict)).partition(" ")
    if "." in number and not number.endswith(TIMES):
        number = number.rstrip("0").rstrip(".")
    return f"{number}{space}{'point' if (number, unit) == ('1', 'points') else unit}"


def is_minimum(verdict: Verdict) -> bool:
    """Whether the figure must be at least the limit (else it must be at most)."""
    return verdict.budget.endswith(".min")


def verdict_text(verdict: Verdict) -> str:
    """``p95 6.10 ms, limit 5 ms``."""
    limit = "at least" if is_minimum(verdict) else "limit"
    return f"{budget_name(verdict)} {budget_value(verdict)}, {limit} {budget_limit(verdict)}"


def _budget_unit(verdict: Verdict) -> str:
    if verdict.budget.endswith(".max_drop") and verdict.unit == "share":
        return "points"
    return "ratio" if verdict.budget == "size_ratio" else clean(verdict.unit)


def outcome_word(outcome: Outcome | str) -> str:
    """``not checked`` for ``not-checked``."""
    return outcome.replace("-", " ")


def _signed_zero(text: str) -> str:
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text.replace("-", MINUS)
