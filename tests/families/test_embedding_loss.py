"""Losses of identities: values by hand, batches without pairs, and that they pull and push the right way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecv.core.recipe import FamilySpec
from edgecv.families import embedding
from edgecv.families.retrieval import IdentityTruth

torch = pytest.importorskip("torch")


def spec(**options: Any) -> FamilySpec:
    return FamilySpec("embedding", ("x",), options=options)


def value(vectors: Any, truths: Any, **options: Any) -> float:
    return float(embedding.loss(torch.tensor(vectors), truths, spec(**options), label_smoothing=0.0))


def test_contrastive_is_a_softmax_over_the_others() -> None:
    vectors = np.array([[2.0, 0.0], [3.0, 4.0], [0.0, -1.0]], np.float32)  # cosines 0.6, 0, -0.8
    one = np.log(1 + np.exp((0.0 - 0.6) / 0.5))
    two = np.log(1 + np.exp((-0.8 - 0.6) / 0.5))
    assert value(vectors, [0, 0, 1], temperature=0.5) == pytest.approx((one + two) / 2, rel=1e-5)
    assert value(10 * vectors, torch.tensor([0, 0, 1]), temperature=0.5) == pytest.approx((one + two) / 2, rel=1e-5)
    assert value(vectors[:, :, None, None], [IdentityTruth(n) for n in (3, 3, 9)], temperature=0.5) == pytest.approx(
        (one + two) / 2, rel=1e-5
    )


def test_triplet_takes_the_hardest() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], np.float32)
    # Distances 1 - cosine: of identity 0 (rows 0, 1, 2) the farthest own, the nearest stranger (row 3).
    wanted = [max(0.0, own - other + 0.3) for own, other in ((0.4, 1.0), (0.2, 0.4), (0.4, 0.2))]
    assert value(vectors, [0, 0, 0, 1], loss="triplet") == pytest.approx(np.mean(wanted), abs=1e-6)


@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
@pytest.mark.parametrize("truths", [[0, 1, 2], [5, 5, 5]])
def test_a_batch_that_teaches_nothing_still_has_a_gradient(loss: str, truths: list[int]) -> None:
    vectors = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = embedding.loss(vectors, truths, spec(loss=loss), label_smoothing=0.0)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(vectors.grad).all()


@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
def test_it_brings_identities_together(loss: str) -> None:
    vectors = torch.randn(24, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    truths = torch.arange(24) % 4
    optimizer = torch.optim.Adam([vectors], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        embedding.loss(vectors, truths, spec(loss=loss), label_smoothing=0.0).backward()
        optimizer.step()
    unit = torch.nn.functional.normalize(vectors.detach(), dim=1)
    cosines = unit @ unit.T
    same = truths[:, None] == truths[None, :]
    assert cosines[same].min() > cosines[~same].max()
