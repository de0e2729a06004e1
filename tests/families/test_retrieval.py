"""Recall at k and mean average precision with queries, galleries and cameras, against a plain loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecv.core.figures import AccuracyFigures
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Embedding
from edgecv.errors import DataError
from edgecv.families import embedding
from edgecv.families import retrieval as module
from edgecv.families.retrieval import IdentityTruth, Retrieval


def judged(name: str, vectors: Any, truths: list[Any]) -> AccuracyFigures:
    metric = Retrieval(name)
    for vector, truth in zip(np.asarray(vectors, np.float32), truths, strict=True):
        metric.update(Embedding(vector / np.linalg.norm(vector)), truth)
    return metric.compute()


def plain(vectors: np.ndarray, truths: list[IdentityTruth]) -> list[tuple[int, float]]:
    """What the paper says, one query at a time."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = []
    for one, query in enumerate(truths):
        if query.role == "gallery":
            continue
        ranked = []
        for other, item in enumerate(truths):
            same = item.number == query.number
            too_easy = same and query.camera != "" and item.camera == query.camera
            if other != one and item.role != "query" and not too_easy:
                ranked.append((-float(unit[one] @ unit[other]), same))
        hits = [same for _, same in sorted(ranked, key=lambda pair: pair[0])]
        if any(hits):
            places = [place for place, hit in enumerate(hits) if hit]
            rows.append((places[0], float(np.mean([(n + 1) / (place + 1) for n, place in enumerate(places)]))))
    return rows


@pytest.mark.parametrize("cameras", [("",), ("a", "b", "c"), ("", "a")])
@pytest.mark.parametrize("block", [1, 1 << 22])
def test_against_a_plain_loop(cameras: tuple[str, ...], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    random = np.random.default_rng(3)
    truths = [
        IdentityTruth(int(random.integers(10)), module.ROLES[int(random.integers(3))], str(random.choice(cameras)))
        for _ in range(80)
    ]
    centres = random.normal(size=(10, 12))
    vectors = np.stack([centres[truth.number] for truth in truths]) + 0.9 * random.normal(size=(80, 12))
    wanted = plain(vectors.astype(np.float32), truths)
    found = judged("map", vectors, truths)
    assert found.samples == len(wanted) > 20
    np.testing.assert_allclose(found.per_sample, [row[1] for row in wanted], rtol=1e-9)
    for rank in (1, 5, 10):
        assert found.extras[f"recall{rank}"] == np.mean([row[0] < rank for row in wanted])
    assert found.extras["recall1"] < found.extras["recall5"] < 1.0


def test_a_query_is_searched_for_in_the_gallery_only() -> None:
    vectors = [[1, 0], [1, 0.1], [0, 1]]
    truths = [IdentityTruth(0, "query"), IdentityTruth(0, "query"), IdentityTruth(0, "gallery")]
    assert judged("recall1", vectors, truths).value == 1.0
    truths = [IdentityTruth(0, "query"), IdentityTruth(0, "query"), IdentityTruth(1, "gallery")]
    with pytest.raises(DataError, match="another of its identity"):
        judged("recall1", vectors, truths)


def test_the_same_camera_is_too_easy() -> None:
    """The nearest picture is of the query's own camera; without it a stranger comes first."""
    vectors = [[1, 0], [1, 0.01], [1, 0.2], [1, 0.3]]
    names = ["a", "a", "a", "b"]
    numbers = [0, 0, 1, 0]
    free = [IdentityTruth(number) for number in numbers]
    seen = [IdentityTruth(number, camera=camera) for number, camera in zip(numbers, names, strict=True)]
    assert judged("recall1", vectors, free).per_sample[0] == 1.0
    assert judged("recall1", vectors, seen).per_sample[0] == 0.0
    assert judged("map", vectors, seen).per_sample[0] == 0.5


def test_plain_numbers_are_truths_and_others_are_not() -> None:
    assert judged("recall5", [[1, 0], [0, 1], [1, 1]], [4, np.int64(4), 5]).value == 1.0
    assert int(IdentityTruth(7)) == 7
    with pytest.raises(DataError, match="truth of a picture is str; embeddings are judged by identities"):
        judged("recall1", [[1, 0]], ["somebody"])
    with pytest.raises(DataError, match="two or more of each"):
        Retrieval("map").compute()


def test_the_family_knows_its_metrics_and_options() -> None:
    from edgecv.core.tensor import TensorSpec

    output = (TensorSpec("y", (1, 8), "float32"),)
    spec = FamilySpec("embedding", ("x",), options={"loss": "triplet", "margin": 0.2})
    assert embedding.problems(spec, output) == []
    for name in embedding.METRICS:
        assert embedding.metric(spec, name) is not None
    wrong = FamilySpec("embedding", ("x",), options={"loss": "hinge", "temprature": 1})
    told = embedding.problems(wrong, output)
    assert any("'hinge'; allowed is contrastive or triplet" in line for line in told)
    assert any("Did you mean 'temperature'?" in line for line in told)
