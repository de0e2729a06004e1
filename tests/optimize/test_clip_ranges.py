"""Ranges of whole clips: the widest of their frames counts, and the mean is over clips."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecv.optimize.clip_ranges import ClipRangeObserver, begin_clips


def observer(averaging: float = 0.5) -> ClipRangeObserver:
    return ClipRangeObserver(
        averaging_constant=averaging,
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_symmetric,
    )


def show(seen: ClipRangeObserver, *highs: float) -> None:
    for high in highs:
        values = torch.tensor([-high / 2, high])
        assert seen(values) is values


def test_the_first_clip_counts_as_it_is() -> None:
    seen = observer()
    show(seen, 0.0, 2.0, 1.0)
    assert (float(seen.min_val), float(seen.max_val)) == (-1.0, 2.0)
    scale, zero = seen.calculate_qparams()
    assert float(scale) == pytest.approx(2.0 / 127.5)
    assert int(zero) == 0


def test_later_clips_weigh_their_share_however_many_frames_they_have() -> None:
    seen = observer()
    show(seen, 2.0)
    begin_clips(nn.ModuleList([seen]))
    show(seen, 0.0, 6.0, 1.0, 3.0, 0.5)
    assert (float(seen.min_val), float(seen.max_val)) == (-2.0, 4.0)
    seen.begin()
    show(seen, 0.0)
    assert (float(seen.min_val), float(seen.max_val)) == (-1.0, 2.0)


def test_a_clip_without_values_changes_nothing() -> None:
    seen = observer()
    show(seen, 2.0)
    seen.begin()
    seen(torch.zeros(0))
    assert (float(seen.min_val), float(seen.max_val)) == (-1.0, 2.0)


def test_what_is_kept_is_the_average_alone() -> None:
    seen, other = observer(), observer()
    show(seen, 2.0, 4.0)
    assert set(seen.state_dict()) == set(nn.Module.state_dict(other)) == {"eps", "min_val", "max_val"}
    other.load_state_dict(seen.state_dict())
    for item in (seen, other):
        item.begin()
        show(item, 8.0)
    assert float(other.max_val) == float(seen.max_val) == 6.0
