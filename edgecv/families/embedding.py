"""Embedding: one unit vector for a picture (a person, a face, a product), by which it is found again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.figures import AccuracyFigures
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Embedding
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families.graph_heads import output_layers

KIND = "embedding"
HEAD_NAMES: tuple[str, ...] = ()
METRICS: tuple[str, ...] = ("recall1", "map")
_SAME_COSINE = 0.98


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why outputs of this shape are no embedding, in words; empty when they are."""
    if spec.head or spec.options:
        return ["family embedding has one layout of outputs only; take head and options away"]
    if len(outputs) != 1 or _length(outputs[0].shape) < 2:
        shapes = [output.shape for output in outputs]
        return [f"the outputs have shapes {shapes}; an embedding is one output (1, D) with D >= 2"]
    return []


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> Embedding:
    """The output `(1, D)` scaled to length 1.

    Raises:
        ModelError: the output has another shape, is all zero, or holds NaN or infinity.
    """
    if len(outputs) != 1 or _length(outputs[0].shape) < 2:
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise ModelError(f"the model gave outputs of shape {shapes}; an embedding is one output (1, D) with D >= 2")
    vector = np.asarray(outputs[0], dtype=np.float32).reshape(-1)
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length == 0.0:
        raise ModelError(f"the embedding has length {length}: a layer overflows or is dead. Check the weights.")
    return Embedding(vector / np.float32(length))


def agree(one: Embedding, other: Embedding) -> bool:
    """Whether the cosine of the two is at least 0.98."""
    return float(one.vector @ other.vector) >= _SAME_COSINE


def metric(spec: FamilySpec, name: str) -> "Retrieval":
    """How well pictures of the same identity are found: ``recall1`` or ``map``.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"embedding has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return Retrieval(name)


class Retrieval:
    """Each picture is once the query, all others are searched, nearest by cosine first.

    ``recall1`` (CMC rank 1): the share of queries whose nearest picture is of the same identity. ``map``: the mean
    over queries of the average precision of their ranking (Zheng et al., "Scalable Person Re-identification",
    ICCV 2015). Pictures whose identity occurs only once are searched, but are no queries.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._vectors: list[FloatArray] = []
        self._identities: list[int] = []

    def update(self, result: Embedding, truth: Any) -> None:
        """Add one picture; ``truth`` is its identity, a number."""
        self._vectors.append(result.vector)
        self._identities.append(int(truth))

    def compute(self) -> AccuracyFigures:
        """Both metrics; ``per_sample`` is each query's, 0 to 1.

        Raises:
            DataError: no identity occurs twice.
        """
        identities = np.array(self._identities)
        same = identities[:, None] == identities[None, :]
        np.fill_diagonal(same, False)
        queries = np.flatnonzero(same.any(axis=1))
        if not len(queries):
            raise DataError("no identity has two pictures, so nothing can be found again; give two or more of each")
        vectors = np.stack(self._vectors)
        first: list[float] = []
        precisions: list[float] = []
        for query in queries:
            likeness = vectors @ vectors[query]
            likeness[query] = -np.inf
            hits = same[query][np.argsort(-likeness, kind="stable")][:-1]
            found = np.flatnonzero(hits)
            first.append(float(hits[0]))
            precisions.append(float((np.arange(1, len(found) + 1) / (found + 1)).mean()))
        both = {"recall1": first, "map": precisions}
        values = both[self._name]
        extras = {name: float(np.mean(given)) for name, given in both.items() if name != self._name}
        return AccuracyFigures(self._name, float(np.mean(values)), len(values), extras=extras, per_sample=tuple(values))


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """There is none on labels: an embedding learns from the original network alone (distillation).

    Raises:
        ModelError: always.
    """
    raise ModelError("embeddings are not trained on labels; set distill: 1.0, so that the original network teaches")


def protected(module: Any) -> list[str]:
    """Names of the layers of a torch ``module`` that make the vector.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind=KIND)


def _length(shape: tuple[int, ...]) -> int:
    """D of `(1, D)`, `(1, D, 1, 1)` and the like; 0 for anything else."""
    return int(np.prod(shape)) if shape and shape[0] == 1 and sum(length > 1 for length in shape) <= 1 else 0
