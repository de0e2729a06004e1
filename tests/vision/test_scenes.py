"""Made-up scenes: the same everywhere and in any order, with truth that fits what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.vision.scenes import LABELS, Scene, SceneSpec


def test_a_frame_is_a_function_of_seed_and_index() -> None:
    one, other = Scene(SceneSpec(seed=5)), Scene(SceneSpec(seed=5))
    forwards = [one.frame(index) for index in (0, 50, 100)]
    backwards = [other.frame(index) for index in (100, 50, 0)][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.ids, b.ids)
    assert not np.array_equal(forwards[0].image, Scene(SceneSpec(seed=6)).frame(0).image)


def test_truth_is_sound_over_time() -> None:
    spec = SceneSpec(size=(240, 320), objects=6, seed=1)
    scene, seen, kinds = Scene(spec), {}, set()
    for index in range(0, 900, 3):
        frame = scene.frame(index)
        assert frame.image.shape == (240, 320, 3)
        assert frame.image.dtype == np.uint8
        assert len(set(frame.ids.tolist())) == len(frame.ids)
        assert (frame.boxes[:, 2:] > frame.boxes[:, :2]).all()
        assert (frame.boxes >= 0).all()
        assert (frame.boxes <= [320, 240, 320, 240]).all()
        assert (frame.visible >= 0.5).all()
        for number, kind, box in zip(frame.ids, frame.class_ids, frame.boxes, strict=True):
            kinds.add(int(kind))
            if number in seen and index - seen[number][0] == 3:
                centre = (box[:2] + box[2:]) / 2 - seen[number][1]
                assert np.abs(centre).max() < 30, "objects move smoothly"
            seen[number] = (index, (box[:2] + box[2:]) / 2)
        persons = frame.class_ids == LABELS.index("person")
        assert (frame.keypoints[persons, :, 2] == 1).all()
        assert (frame.keypoints[~persons] == 0).all()
    assert kinds == {0, 1, 2, 3}
    assert len(seen) > 15, "objects come and go"


def test_a_box_is_where_the_object_is_drawn() -> None:
    """One object without noise: what differs from the empty scene lies in its box and fills it."""
    for seed in range(12):
        spec = SceneSpec(size=(200, 300), objects=1, seed=seed, noise=0.0)
        for time_s in (1.0, 3.0, 5.0):
            full = Scene(spec).at(time_s)
            empty = Scene(SceneSpec(size=(200, 300), objects=0, seed=seed, noise=0.0)).at(time_s)
            changed = (full.image != empty.image).any(axis=2)
            if not len(full.boxes):
                continue
            rows, columns = np.nonzero(changed)
            drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            np.testing.assert_allclose(full.boxes[0], drawn, atol=4.5)  # the tips of triangles are thin


def test_speed_does_not_depend_on_the_frame_rate() -> None:
    slow, fast = Scene(SceneSpec(fps=10, noise=0.0)), Scene(SceneSpec(fps=60, noise=0.0))
    np.testing.assert_allclose(slow.frame(20).boxes, fast.frame(120).boxes, atol=1e-4)


@pytest.mark.parametrize("objects", [0, 1, 40])
def test_any_number_of_objects(objects: int) -> None:
    frame = Scene(SceneSpec(objects=objects)).frame(3)
    assert len(frame.boxes) + len(frame.ignored) <= objects
