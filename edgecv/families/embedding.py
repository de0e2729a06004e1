"""Embedding: one unit vector for a picture (a person, a face, a product), by which it is found again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Embedding
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import ModelError, UsageError
from edgecv.families.embedding_loss import LOSS_OPTIONS, embedding_loss
from edgecv.families.graph_heads import output_layers
from edgecv.families.heads.common import option_problems
from edgecv.families.retrieval import METRICS, Retrieval

__all__ = ["HEAD_NAMES", "KIND", "METRICS", "agree", "decode", "loss", "metric", "problems", "protected"]

KIND = "embedding"
HEAD_NAMES: tuple[str, ...] = ()
_SAME_COSINE = 0.98


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why outputs of this shape are no embedding, in words; empty when they are."""
    if spec.head:
        return ["family embedding has one layout of outputs only; take head away"]
    wrong = option_problems(LOSS_OPTIONS, spec)
    if wrong:
        return wrong
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


def metric(spec: FamilySpec, name: str) -> Retrieval:
    """How well pictures of the same identity are found: ``recall1``, ``recall5`` or ``map``.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"embedding has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return Retrieval(name)


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """How far vectors of one identity lie apart and those of others near: `edgecv.families.embedding_loss`.

    ``outputs`` is a torch tensor `(N, D)` (or with two more axes of length 1), ``truths`` N identities; a scalar
    tensor. ``label_smoothing`` does not matter: no class is named.
    """
    return embedding_loss(outputs, truths, spec)


def protected(module: Any) -> list[str]:
    """Names of the layers of a torch ``module`` that make the vector.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind=KIND)


def _length(shape: tuple[int, ...]) -> int:
    """D of `(1, D)`, `(1, D, 1, 1)` and the like; 0 for anything else."""
    return int(np.prod(shape)) if shape and shape[0] == 1 and sum(length > 1 for length in shape) <= 1 else 0
