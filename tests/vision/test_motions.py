"""Made-up movements: the same on every call, and each one moves as its name says."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.tensor import FloatArray
from edgecv.vision.motions import MOVEMENTS, SIZE, Motion, Movement


def moved(movement: Movement, seed: int) -> FloatArray:
    """What differs between a moment and one half a second later, `(H, W)`, signed by which of the two shows it."""
    video = Motion(movement, seed)
    one, other = (video.at(time_s).astype(np.float32) for time_s in (0.6, 1.4))
    ground = np.median([video.at(time_s) for time_s in np.linspace(0.0, 1.9, 15)], axis=0)
    found: FloatArray = (np.abs(other - ground).sum(axis=2) > 60).astype(np.float32)
    found -= np.abs(one - ground).sum(axis=2) > 60
    return found


def centre(mask: FloatArray) -> FloatArray:
    """Mean row and column of where ``mask`` is set."""
    places: FloatArray = np.argwhere(mask).mean(axis=0)
    return places


def test_frames_are_a_function_of_seed_and_time() -> None:
    for movement in MOVEMENTS:
        frame = Motion(movement, 3).at(0.75)
        assert frame.shape == (*SIZE, 3)
        assert frame.dtype == np.uint8
        assert np.array_equal(frame, Motion(movement, 3).at(0.75))
        assert not np.array_equal(frame, Motion(movement, 4).at(0.75))


@pytest.mark.parametrize(
    ("movement", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)]
)
def test_things_go_where_the_name_says(movement: Movement, axis: int, sign: int) -> None:
    went = [centre(moved(movement, seed) > 0)[axis] - centre(moved(movement, seed) < 0)[axis] for seed in range(12)]
    assert np.median(went) * sign > 5


def test_still_is_still_and_the_others_are_not() -> None:
    for seed in range(6):
        video = Motion("still", seed)
        change = np.abs(video.at(0.2).astype(int) - video.at(1.3)).max()
        assert change <= 6, "only the noise changes"
    for movement in MOVEMENTS[1:]:
        video = Motion(movement, 5)
        assert np.abs(video.at(0.2).astype(int) - video.at(0.9)).max() > 60, movement


def test_the_look_does_not_tell_the_movement() -> None:
    """Figures, which always stand where something waves, appear with other movements too."""
    shapes = {movement: {Motion(movement, seed)._shape for seed in range(40)} for movement in MOVEMENTS}
    assert shapes["wave"] == {"figure"}
    assert all("figure" in shapes[movement] for movement in MOVEMENTS if movement != "turn")
    assert all(len(found) > 3 for movement, found in shapes.items() if movement != "wave")
