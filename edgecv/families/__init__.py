"""Model families by kind. A new family is one module here and one row of the table."""

from __future__ import annotations

import difflib

from edgecv.core.protocols import Family
from edgecv.errors import UsageError
from edgecv.families import classification, detection, embedding, pose

FAMILIES: dict[str, Family] = {
    "classification": classification,
    "detection": detection,
    "pose": pose,
    "embedding": embedding,
}


def get(kind: str) -> Family:
    """The family module of ``kind``.

    Raises:
        UsageError: there is no such family.
    """
    try:
        return FAMILIES[kind]
    except KeyError:
        near = difflib.get_close_matches(kind, FAMILIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"there is no model family {kind!r}; allowed: {', '.join(FAMILIES)}.{hint}") from None
