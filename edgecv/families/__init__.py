"""Model families by kind. A new family is one module here and one row of the table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

from edgecv.core.contract import InputContract
from edgecv.core.kinds import FAMILY_KINDS, FamilyKind
from edgecv.core.protocols import Family, Parts
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Array, TensorSpec
from edgecv.errors import ArtifactError, UsageError
from edgecv.families import (
    anomaly,
    anomaly_metric,
    classification,
    depth,
    detection,
    embedding,
    instance,
    pose,
    pose_parts,
    ranked,
    restoration,
    segmentation,
    segmentation_metric,
    text,
    textdet,
    video,
)
from edgecv.vision.tiles import Tiling

FAMILIES: dict[FamilyKind, Family] = {
    "classification": classification,
    "detection": detection,
    "pose": pose,
    "embedding": embedding,
    "segmentation": segmentation,
    "text": text,
    "restoration": restoration,
    "depth": depth,
    "instance": instance,
    "anomaly": anomaly,
    "video": video,
    "text-detection": textdet,
}

_PARTS: dict[str, Callable[[Mapping[str, Array]], Parts]] = {
    anomaly_metric.FORM: anomaly_metric.ScoreParts.from_arrays,
    ranked.FORM: ranked.RankedParts.from_arrays,
    pose_parts.FORM: pose_parts.ShareParts.from_arrays,
    segmentation_metric.FORM: segmentation_metric.PixelParts.from_arrays,
}


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
        return FAMILIES[kind]  # type: ignore[index]
    except KeyError:
        near = difflib.get_close_matches(kind, FAMILIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"there is no model family {kind!r}; allowed: {', '.join(FAMILIES)}.{hint}") from None


def trains(spec: FamilySpec) -> bool:
    """Whether the family has a loss on labels for networks with this head; one that has it for some has `trains`."""
    found: Callable[[FamilySpec], bool] | None = getattr(get(spec.kind), "trains", None)
    return FAMILY_KINDS[spec.kind].loss and (found is None or found(spec))


def sorts_rows(spec: FamilySpec) -> bool:
    """Whether the network puts the rows of its outputs in order itself, best first, so that a row has no fixed meaning.

    A family with such heads has a function of this name.
    """
    found: Callable[[FamilySpec], bool] | None = getattr(get(spec.kind), "sorts_rows", None)
    return found is not None and found(spec)


def tiling(spec: FamilySpec, contract: InputContract) -> Tiling | None:
    """How pictures are cut into tiles of the network's size; None where they are resized to it, as in most families.

    A family that works in tiles has a function of this name.
    """
    found: Callable[[FamilySpec, InputContract], Tiling | None] | None = getattr(get(spec.kind), "tiling", None)
    return None if found is None else found(spec, contract)


def problems(spec: FamilySpec, contract: InputContract, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why outputs of these shapes do not fit the family and, where it works in tiles, the network's input, in words."""
    found = get(spec.kind).problems(spec, outputs)
    tiles = None if found else tiling(spec, contract)
    return found if tiles is None else [*tiles.problems(), *tiles.output_problems([item.shape for item in outputs])]
