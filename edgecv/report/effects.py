"""What a step changed, as readable figures: ``macs_before`` and ``macs_after`` become one line."""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import dataclass

from edgecv.core.kinds import METRIC_UNITS
from edgecv.report.schema import StepFigures
from edgecv.report.words import bytes_text, change_text, clean, metric_name, metric_text, short

__all__ = ["Effect", "effects"]

_NAMES = {"macs": "MACs", "bytes": "size", "file_bytes": "size", "params": "parameters"}
_CHARS = 160


@dataclass(frozen=True)
class Effect:
    """One figure of a step: ``values`` holds field name, value and text of it, or of before and after.

    ``change`` is the relative change in per cent, or "".
    """

    name: str
    values: tuple[tuple[str, float | int | str, str], ...]
    change: str = ""

    def __str__(self) -> str:
        text = f"{self.name} " + " → ".join(shown for _, _, shown in self.values)
        return f"{text} ({self.change})" if self.change else text


def effects(step: StepFigures) -> tuple[Effect, ...]:
    """The step's figures in their order; pairs of before and after stand together."""
    found = []
    for key, value in step.effect.items():
        if value in ("", "[]"):
            continue
        stem = key.removesuffix("_before").removesuffix("_after")
        before, after = step.effect.get(f"{stem}_before"), step.effect.get(f"{stem}_after")
        if before is None or after is None:
            found.append(Effect(_name(key), ((clean(key), value, _text(key, value)),)))
        elif key.endswith("_before"):
            pair = ((f"{stem}_before", before), (f"{stem}_after", after))
            values = tuple((clean(name), one, _text(name, one)) for name, one in pair)
            found.append(Effect(_name(stem), values, _change(stem, before, after)))
    return tuple(found)


def _name(key: str) -> str:
    return _NAMES.get(key, " ".join(metric_name(part) for part in clean(key).split("_")))


def _words(value: str) -> str:
    if re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]
    if value.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            value = "; ".join(map(str, json.loads(value)))
    return short(clean(value), _CHARS)


def _share(key: str) -> str:
    """The metric told in per cent or in its unit that a key such as ``held_out_top1`` names, or ""."""
    return next((part for part in key.split("_") if part in ("top1", "top5", *METRIC_UNITS)), "")


def _change(stem: str, before: float | int | str, after: float | int | str) -> str:
    # A change of a share in per cent of itself would be read as points.
    if _share(stem) or isinstance(before, str) or isinstance(after, str) or not before:
        return ""
    return change_text(before, after)


def _text(key: str, value: float | int | str) -> str:
    if isinstance(value, str):
        return _words(clean(value))
    if _share(key):
        return metric_text(_share(key), value)
    if "bytes" in key and isinstance(value, int):
        return bytes_text(value)
    if abs(value) >= 1e5 and math.isfinite(value):
        power, letter = next(pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if abs(value) >= pair[0])
        return f"{value / power:.2f} {letter}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
