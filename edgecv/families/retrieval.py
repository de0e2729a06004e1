"""How well pictures of the same identity are found among others: recall at k (CMC) and mean average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgecv.core.figures import AccuracyFigures
from edgecv.core.results import Embedding
from edgecv.core.tensor import FloatArray
from edgecv.errors import DataError

METRICS: tuple[str, ...] = ("recall1", "recall5", "map")
Role = Literal["query", "gallery", "both"]
ROLES: tuple[Role, ...] = ("query", "gallery", "both")

_RANKS = (1, 5, 10)
_BLOCK = 1 << 22
"""Cosines that are held at once."""


@dataclass(frozen=True)
class IdentityTruth:
    """Whom (or what) a picture shows, as a number from 0, and whether it is searched for, searched in, or both.

    Of one ``camera`` (any name; "" for unknown) the other pictures of the same identity are passed over in a search:
    they are too easy. Where there are neither roles nor cameras, a plain number is a truth too.
    """

    number: int
    role: Role = "both"
    camera: str = ""

    def __int__(self) -> int:
        return self.number


class Retrieval:
    """Each query is searched for among the gallery's pictures, nearest by cosine first; never among itself.

    ``recall1``, ``recall5``: the share of queries with a picture of the same identity among the first 1 or 5 (the
    cumulative match characteristic at that rank). ``map``: the mean over queries of the average precision of their
    ranking (both as in Zheng et al., "Scalable Person Re-identification", ICCV 2015, pictures of the query's own
    identity and camera passed over). With plain numbers for truths each picture is once the query and all others are
    the gallery. A query that has nothing to be found is none.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._vectors: list[FloatArray] = []
        self._truths: list[IdentityTruth] = []

    def update(self, result: Embedding, truth: Any) -> None:
        """Add one picture; ``truth`` is an `IdentityTruth`, or the number of its identity.

        Raises:
            DataError: it is neither.
        """
        if isinstance(truth, (int, np.integer)):
            truth = IdentityTruth(int(truth))
        if not isinstance(truth, IdentityTruth):
            raise DataError(
                f"the truth of a picture is {type(truth).__name__}; embeddings are judged by identities: data of kind "
                "identities, identities-csv or imagefolder"
            )
        self._vectors.append(result.vector)
        self._truths.append(truth)

    def compute(self) -> AccuracyFigures:
        """The metric; ``per_sample`` is each query's, 0 to 1. ``extras``: recall1, recall5, recall10 and map.

        Raises:
            DataError: no query has a picture of its identity in the gallery.
        """
        rows = self._rankings()
        if not rows:
            raise DataError(
                "no picture of the set has another of its identity to be found (of another camera, where cameras are "
                "given); give two or more of each identity, or queries and a gallery"
            )
        each = {f"recall{rank}": [float(row[0] < rank) for row in rows] for rank in _RANKS}
        each["map"] = [row[1] for row in rows]
        values = each[self._name]
        extras = {name: float(np.mean(given)) for name, given in each.items()}
        return AccuracyFigures(self._name, extras[self._name], len(values), extras=extras, per_sample=tuple(values))

    def _rankings(self) -> list[tuple[int, float]]:
        """Of each query that has something to be found: the place of the first right one from 0, and its precision."""
        if not self._vectors:
            return []
        vectors = np.stack(self._vectors)
        numbers = np.array([truth.number for truth in self._truths])
        cameras = np.array([truth.camera for truth in self._truths])
        queries = np.flatnonzero([truth.role != "gallery" for truth in self._truths])
        gallery = np.flatnonzero([truth.role != "query" for truth in self._truths])
        rows: list[tuple[int, float]] = []
        step = max(1, _BLOCK // max(1, len(gallery)))
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            likeness = vectors[block] @ vectors[gallery].T
            for query, cosines in zip(block, likeness, strict=True):
                same = numbers[gallery] == numbers[query]
                taken = (cameras[gallery] == cameras[query]) & (cameras[query] != "")
                seen = (gallery != query) & ~(same & taken)
                row = _ranking(cosines[seen], same[seen])
                rows += [] if row is None else [row]
        return rows


def _ranking(cosines: FloatArray, same: npt.NDArray[np.bool_]) -> tuple[int, float] | None:
    """Place of the first right one from 0, and the average precision; None where there is none."""
    found = np.flatnonzero(same[np.argsort(-cosines, kind="stable")])
    if not len(found):
        return None
    return int(found[0]), float((np.arange(1, len(found) + 1) / (found + 1)).mean())


def numbers_of(truths: Sequence[Any]) -> list[int]:
    """The identities of truths as `Retrieval` takes them (numbers, or an array of them)."""
    return [int(truth) for truth in truths]
