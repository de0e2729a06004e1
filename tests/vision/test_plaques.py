"""Plaques: each number its own look, each view its own circumstances."""

from __future__ import annotations

import numpy as np

from edgecv.vision.plaques import draw_plaque, plaque_view


def test_a_plaque_is_a_function_of_its_number() -> None:
    one, cover = draw_plaque(5)
    again, _ = draw_plaque(5)
    other, _ = draw_plaque(6)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any(axis=2).mean() > 0.5
    assert one.dtype == np.uint8
    assert 0.15 < cover.mean() < 0.9
    assert cover.min() == 0.0
    assert cover.max() == 1.0


def test_views_differ_and_can_be_repeated() -> None:
    views = [plaque_view(5, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).mean() > 0.5
    assert plaque_view(5, np.random.default_rng(3), size=(40, 90)).shape == (40, 90, 3)


def test_views_of_one_plaque_are_more_alike_than_those_of_two() -> None:
    """By colours alone, in the middle of the picture: enough to tell that there is something to learn."""

    def look(number: int, seed: int) -> np.ndarray:
        part = plaque_view(number, np.random.default_rng([number, seed]))[22:42, 22:42].reshape(-1, 3)
        counts, _ = np.histogramdd(part, bins=(4, 4, 4), range=((0, 256),) * 3)
        return np.sqrt(counts.ravel() / counts.sum())

    looks = [[look(number, seed) for seed in range(6)] for number in range(12)]
    own = np.mean([one @ other for views in looks for one in views[:3] for other in views[3:]])
    cross = np.mean([looks[a][0] @ looks[b][1] for a in range(12) for b in range(12) if a != b])
    assert own > cross + 0.15
