"""The reference network that finds text."""

from __future__ import annotations

import pytest
import torch

from edgecv.models.reference_textdet import text_finder


@pytest.mark.parametrize(("planes", "widths"), [(2, (16, 24, 40, 56)), (1, (8, 8, 8))])
def test_shapes(planes: int, widths: tuple[int, ...]) -> None:
    network = text_finder(planes=planes, widths=widths).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 64, 96)).shape == (2, planes, 32, 48)


def test_it_is_small() -> None:
    assert 85_000 < sum(item.numel() for item in text_finder().parameters()) < 100_000


def test_what_is_far_matters() -> None:
    """The pyramid brings what the coarsest level sees to each place."""
    torch.manual_seed(0)
    network = text_finder().eval()
    one = torch.randn(1, 3, 96, 96)
    other = one.clone()
    other[..., 80:, 80:] += 2.0
    with torch.no_grad():
        change = (network(one) - network(other)).abs()
    assert float(change[..., 30, 30].max()) > 0
