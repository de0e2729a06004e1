"""Embeddings: the vector, its metrics against scikit-learn's, and wrong outputs."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Embedding
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families import embedding

SPEC = FamilySpec("embedding", ("object",))
CONTRACT = InputContract(size=(8, 8))


def test_the_vector_has_length_one_and_keeps_its_direction() -> None:
    given = np.array([[3.0, 0.0, -4.0]], np.float32)
    for shape in ((1, 3), (1, 3, 1, 1)):
        found = embedding.decode([given.reshape(shape)], SPEC, CONTRACT)
        np.testing.assert_allclose(found.vector, [0.6, 0.0, -0.8], rtol=1e-6)
    assert found.to_dict() == {"embedding": [0.6, 0.0, -0.8]}
    large = np.full((1, 4), 3e30, np.float32)  # the squares overflow float32
    np.testing.assert_allclose(embedding.decode([large], SPEC, CONTRACT).vector, 0.5)


@pytest.mark.parametrize("values", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_no_direction_no_embedding(values: list[float]) -> None:
    with pytest.raises(ModelError, match="length"):
        embedding.decode([np.array([values], np.float32)], SPEC, CONTRACT)


@pytest.mark.parametrize("shapes", [[(1, 2, 3)], [(1, 4), (1, 4)], [(1, 1)], [(2, 4)], []])
def test_other_outputs_are_refused(shapes: list[tuple[int, ...]]) -> None:
    outputs = tuple(TensorSpec(f"y{index}", shape, "float32") for index, shape in enumerate(shapes))
    assert "embedding" in embedding.problems(SPEC, outputs)[0]
    with pytest.raises(ModelError, match="embedding"):
        embedding.decode([np.ones(shape, np.float32) for shape in shapes], SPEC, CONTRACT)
    assert embedding.problems(SPEC, (TensorSpec("y", (1, 512), "float32"),)) == []
    assert embedding.problems(FamilySpec("embedding", ("x",), head="arc"), (TensorSpec("y", (1, 8), "float32"),))


def test_retrieval_against_scikit_learn() -> None:
    average_precision_score = pytest.importorskip("sklearn.metrics").average_precision_score
    random = np.random.default_rng(5)
    identities = random.integers(0, 12, 60)
    identities[-1] = 99  # occurs once: searched, but no query
    vectors = random.normal(size=(60, 16)) + 1.5 * random.normal(size=(100, 16))[identities]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    metric = embedding.metric(SPEC, "map")
    for vector, identity in zip(vectors, identities, strict=True):
        metric.update(Embedding(vector), identity)
    precisions, firsts = [], []
    for query in range(60):
        others = np.arange(60) != query
        right = identities[others] == identities[query]
        if right.any():
            likeness = vectors[others] @ vectors[query]
            precisions.append(average_precision_score(right, likeness))
            firsts.append(right[likeness.argmax()])
    figures = metric.compute()
    assert (figures.metric, figures.samples) == ("map", len(precisions))
    assert 0.2 < figures.value < 0.98, "neither chance nor trivial"
    np.testing.assert_allclose(figures.per_sample, precisions, rtol=1e-6)
    assert figures.extras["recall1"] == pytest.approx(np.mean(firsts))


def test_metric_needs_pairs_and_a_known_name() -> None:
    metric = embedding.metric(SPEC, "recall1")
    metric.update(Embedding(np.array([1.0, 0.0], np.float32)), 1)
    metric.update(Embedding(np.array([1.0, 0.0], np.float32)), 2)
    with pytest.raises(DataError, match="two or more"):
        metric.compute()
    with pytest.raises(UsageError, match="recall1"):
        embedding.metric(SPEC, "top1")


def test_agree_is_a_cosine() -> None:
    one = Embedding(np.array([1.0, 0.0], np.float32))
    assert embedding.agree(one, Embedding(np.array([0.99, 0.141], np.float32)))
    assert not embedding.agree(one, Embedding(np.array([0.9, 0.436], np.float32)))


def test_likeness_is_the_cosine() -> None:
    one, other = np.array([1.0, 0.0], np.float32), np.array([0.6, 0.8], np.float32)
    assert Embedding(one).likeness(Embedding(other)) == pytest.approx(0.6)
    assert Embedding(one).likeness(Embedding(-one)) == 0.0
