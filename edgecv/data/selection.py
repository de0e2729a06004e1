"""Which pictures of a data set make a calibration set."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.protocols import Reader
from edgecv.core.results import DetectionTruth
from edgecv.core.tensor import FloatArray
from edgecv.data.features import features_of
from edgecv.errors import DataError

Rule = Literal["random", "stratified", "k-center"]

MAX_CANDIDATES = 10_000
"""k-center looks at a random pool of so many pictures of a larger set, which bounds time and memory (10 MB)."""


def pick(
    reader: Reader, *, labels: Sequence[str], samples: int, select: Rule, seed: int, contract: InputContract
) -> list[int]:
    """Indices of ``samples`` pictures of ``reader``, in rising order; the same arguments give the same ones.

    ``random``: each picture is as likely as any other. ``stratified``: at random, as many of each class as the
    classes allow (a picture of several classes counts for each; those of none come last). ``k-center``: greedy
    k-centre on small features of the network's input, so that no picture is far from a picked one (the
    core-set of Sener and Savarese 2018, arXiv:1708.00489; the greedy rule is within twice the best radius,
    Gonzalez 1985).

    Raises:
        DataError: the set has fewer pictures than ``samples``, or ``stratified`` and no labels.
    """
    if not 1 <= samples <= len(reader):
        raise DataError(
            f"samples is {samples}; the data set has {len(reader)} pictures, so 1..{len(reader)} are allowed. "
            "Lower samples, or use a larger data set."
        )
    rules: dict[Rule, Callable[[], list[int]]] = {
        "random": lambda: _random(len(reader), samples, seed),
        "stratified": lambda: _by_class(truths_of(reader), samples, seed, classes=len(labels)),
        "k-center": lambda: _k_center(reader, samples, seed, contract),
    }
    return sorted(rules[select]())


def truths_of(reader: Reader) -> Sequence[Any]:
    """Truth of every sample; a reader without ``truths`` has each of its samples read.

    Raises:
        DataError: a sample cannot be read.
    """
    known: Sequence[Any] | None = getattr(reader, "truths", None)
    return known if known is not None else [reader[index].truth for index in range(len(reader))]


def classes_of(truth: Any) -> tuple[int, ...] | None:
    """The classes that a picture shows, each once, in rising order; None where there is no label.

    A truth that is neither a class index nor a `DetectionTruth` tells no classes either.
    """
    if isinstance(truth, (int, np.integer)):
        return (int(truth),)
    if isinstance(truth, DetectionTruth):
        return tuple(int(index) for index in np.unique(truth.class_ids))
    return None


def greedy_k_center(vectors: FloatArray, samples: int, *, first: int) -> list[int]:
    """Rows of ``vectors`` `(N, D)`: ``first``, then always the one that is farthest from all picked ones.

    Takes ``samples * N * D`` steps and N floats; ``samples`` lies within 1..N. Of equals, the first wins.
    """
    picked = [first]
    nearest = _distances(vectors, first)
    while len(picked) < samples:
        nearest[picked[-1]] = -1.0  # a twin of a picked row is at 0 and must still come before the row itself
        best = int(np.argmax(nearest))
        picked.append(best)
        nearest = np.minimum(nearest, _distances(vectors, best))
    return picked


def covering_radius(vectors: FloatArray, picked: Sequence[int]) -> float:
    """Largest distance of any row of ``vectors`` `(N, D)` to the nearest picked row, in feature units."""
    nearest = _distances(vectors, picked[0])
    for index in picked[1:]:
        np.minimum(nearest, _distances(vectors, index), out=nearest)
    return float(nearest.max())


def _distances(vectors: FloatArray, index: int) -> FloatArray:
    found: FloatArray = np.linalg.norm(vectors - vectors[index], axis=1)
    return found


def _random(total: int, samples: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(total), samples)


def _by_class(truths: Sequence[Any], samples: int, seed: int, *, classes: int) -> list[int]:
    if all(isinstance(truth, (int, np.integer)) for truth in truths):
        return _stratified(truths, samples, seed, classes=classes)
    shows = [classes_of(truth) for truth in truths]
    if None in shows:
        raise DataError("select is stratified and the pictures have no labels; use select: random or k-center")
    return _stratified_sets([found or () for found in shows], samples, seed, classes=classes)


def _stratified_sets(shows: Sequence[tuple[int, ...]], samples: int, seed: int, *, classes: int) -> list[int]:
    """Always a picture that shows most of the classes that are shown least so far; of equals, one at random."""
    order = np.array(_random(len(shows), len(shows), seed), dtype=np.int64)
    table = np.zeros((len(shows), classes), dtype=np.float32)
    for row, index in enumerate(order):
        table[row, list(shows[index])] = 1.0
    seen = np.zeros(classes, dtype=np.float32)
    picked: list[int] = []
    free = np.ones(len(shows), dtype=bool)
    while len(picked) < samples:
        row = int(np.argmax(np.where(free, table @ (1.0 / (1.0 + seen)), -1.0)))
        free[row] = False
        picked.append(int(order[row]))
        seen += table[row]
    return picked


def _stratified(truths: Sequence[int], samples: int, seed: int, *, classes: int) -> list[int]:
    """One of each class in turn, so that small classes are used up rather than left out."""
    generator = random.Random(seed)
    pools: list[list[int]] = [[] for _ in range(classes)]
    for index, truth in enumerate(truths):
        pools[truth].append(index)
    for pool in pools:
        generator.shuffle(pool)
    picked: list[int] = []
    while len(picked) < samples:
        open_pools = [pool for pool in pools if pool]
        generator.shuffle(open_pools)  # the last round does not reach all classes: which ones is left to chance
        picked += [pool.pop() for pool in open_pools[: samples - len(picked)]]
    return picked


def _k_center(reader: Reader, samples: int, seed: int, contract: InputContract) -> list[int]:
    pool_size = min(len(reader), max(MAX_CANDIDATES, samples))
    pool = sorted(_random(len(reader), pool_size, seed))
    vectors = features_of(reader, pool, contract).vectors
    first = random.Random(seed).randrange(pool_size)
    return [pool[index] for index in greedy_k_center(vectors, samples, first=first)]
