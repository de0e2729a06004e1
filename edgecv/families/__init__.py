"""Model families by kind. A new family is one module here and one row of the table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from edgecv.core.protocols import Family, Parts
from edgecv.core.tensor import Array
from edgecv.errors import ArtifactError, UsageError
from edgecv.families import classification, detection, embedding, pose, ranked

FAMILIES: dict[str, Family] = {
    "classification": classification,
    "detection": detection,
    "pose": pose,
    "embedding": embedding,
}

_PARTS: dict[str, Callable[[Mapping[str, Array]], Parts]] = {ranked.FORM: ranked.RankedParts.from_arrays}


def parts_from(arrays: Mapping[str, Array]) -> Parts:
    """The parts of a metric from what its ``arrays`` gave.

    Raises:
        ArtifactError: the arrays are not those of any metric.
    """
    form = str(arrays.get("form", ""))
    try:
        return _PARTS[form](arrays)
    except KeyError as error:
        raise ArtifactError(f"parts of a metric of form {form!r} lack {error}; evaluate again") from error


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
