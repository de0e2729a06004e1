"""Values on the command line: NAME=VALUE, and times such as 10m."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from edgecv.errors import UsageError


def named_values(items: Sequence[str], flag: str) -> dict[str, Any]:
    """``NAME=VALUE`` each; VALUE is JSON where it can be read as such (4, true, [1, 2]), else text.

    Raises:
        UsageError: an item has no ``=`` or no name, or a name stands twice; ``flag`` says where.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{flag} is {item!r}; allowed is NAME=VALUE")
        if name in found:
            raise UsageError(f"{flag} names {name!r} twice; give it once")
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
    return found


def duration_s(text: str, flag: str) -> float:
    """``90s``, ``10m``, ``1.5h``, ``1h30m`` or a plain number of seconds, in seconds.

    Raises:
        UsageError: it is none of these, or not above 0; ``flag`` says where.
    """
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    parts = [float(part or 0) for part in found.groups()] if found is not None else [0.0, 0.0, 0.0]
    seconds = parts[0] * 3600 + parts[1] * 60 + parts[2]
    if seconds <= 0:
        raise UsageError(f"{flag} is {text!r}; allowed is a time above 0, such as 90s, 10m or 1h")
    return seconds
