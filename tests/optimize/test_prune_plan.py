"""Which channels go: thresholds, rounding, limits, and the search for the smallest cut that is enough."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from edgecv.optimize.prune_graph import Cut, Prunable
from edgecv.optimize.prune_plan import Counts, Limits, Scored, first_enough, planned_counts, planned_cuts

FREE = Limits(round_to=1, max_layer_ratio=0.99, originally={})


def scored(name: str, scores: list[float], *, repeats: int = 1) -> Scored:
    units = tuple(tuple(part * len(scores) + index for part in range(repeats)) for index in range(len(scores)))
    return Scored(Prunable("", name, units), torch.tensor(scores))


LOW = scored("low", [0.1, 0.2, 0.3, 0.4])
HIGH = scored("high", [0.35, 0.5, 0.6, 0.7])


def test_global_scope_cuts_below_one_threshold_and_uniform_the_same_share() -> None:
    assert planned_counts([LOW, HIGH], share=0.5, scope="global", limits=FREE) == (3, 1)
    assert planned_counts([LOW, HIGH], share=0.5, scope="uniform", limits=FREE) == (2, 2)
    assert planned_counts([LOW, HIGH], share=0.0, scope="global", limits=FREE) == (0, 0)


def test_no_layer_loses_everything_or_more_than_its_share() -> None:
    assert planned_counts([LOW, HIGH], share=1.0, scope="global", limits=FREE) == (3, 3)
    half = dataclasses.replace(FREE, max_layer_ratio=0.5)
    assert planned_counts([LOW, HIGH], share=1.0, scope="global", limits=half) == (2, 2)
    # The share counts from what the layer had at first, not from what an earlier round left.
    earlier = dataclasses.replace(half, originally={("", "low"): 6})
    assert planned_counts([LOW, HIGH], share=1.0, scope="uniform", limits=earlier) == (1, 2)


@pytest.mark.parametrize(("wanted", "cut"), [(0, 0), (3, 0), (4, 4), (7, 4), (11, 8), (12, 8)])
def test_what_is_left_is_a_multiple(wanted: int, cut: int) -> None:
    layer = scored("layer", [float(index) for index in range(12)])
    assert Limits(round_to=4, max_layer_ratio=0.9, originally={}).cut(layer, wanted) == cut


def test_odd_widths_are_brought_to_a_multiple() -> None:
    layer = scored("layer", [float(index) for index in range(10)])
    assert Limits(round_to=8, max_layer_ratio=0.9, originally={}).cut(layer, 5) == 2


def test_cuts_name_the_least_important_channels_of_every_part() -> None:
    grouped = scored("grouped", [0.9, 0.1, 0.5], repeats=2)
    assert planned_cuts([LOW, grouped], (2, 1), round_index=3) == [
        Cut(3, "", "low", (0, 1)),
        Cut(3, "", "grouped", (1, 4)),
    ]
    assert planned_cuts([LOW, grouped], (0, 0), round_index=0) == []


def test_units_count_with_all_their_channels() -> None:
    grouped = scored("grouped", [0.1, 0.8], repeats=3)
    # Half of ten channels are the three of the first unit and two of the low layer.
    assert planned_counts([LOW, grouped], share=0.5, scope="global", limits=FREE) == (2, 1)


def test_search_finds_the_smallest_plan_that_is_enough() -> None:
    asked: list[Counts] = []

    def enough(counts: Counts) -> bool:
        asked.append(counts)
        return sum(counts) >= 37

    found = first_enough(lambda number: (number // 3, number // 3), 300, enough=enough)
    # Both groups step at once from 18 to 19; the first of them alone is enough.
    assert found == (19, 18)
    assert len(asked) < 20
    assert first_enough(lambda number: (number,), 300, enough=lambda counts: counts[0] > 300) is None


def test_cuts_go_through_json() -> None:
    cut = Cut(1, "stage.0", "conv", (1, 5))
    assert Cut.from_dict(cut.to_dict()) == cut
