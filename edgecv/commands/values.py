"""NAME=VALUE on the command line."""

from __future__ import annotations

import json
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
