"""The made-up scenes: what the truth says is what the picture shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from edgecv.vision.scenes import LABELS, Scene, SceneFrame, SceneSpec

KINDS = range(len(LABELS))
PERSON = LABELS.index("person")


def drawn(spec: SceneSpec, index: int) -> tuple[SceneFrame, npt.NDArray[np.bool_]]:
    """The frame, and the pixels that its objects changed."""
    frame = Scene(spec).frame(index)
    empty = Scene(replace(spec, objects=0)).frame(index)
    return frame, np.any(frame.image != empty.image, axis=2)


def inside(box: npt.NDArray[np.float32], size: tuple[int, int], *, by: float = 2.0) -> bool:
    return bool((box[:2] > by).all() and box[2] < size[1] - by and box[3] < size[0] - by)


def alone(kind: int, size: tuple[int, int]) -> list[tuple[SceneFrame, npt.NDArray[np.bool_]]]:
    """Frames in which one object of a kind stands wholly inside."""
    spec = SceneSpec(size=size, objects=1, noise=0, classes=(kind,))
    pairs = (drawn(replace(spec, seed=seed), index) for seed in range(3) for index in range(0, 600, 41))
    return [pair for pair in pairs if len(pair[0].boxes) == 1 and inside(pair[0].boxes[0], size)]


@pytest.mark.parametrize("kind", KINDS, ids=LABELS)
@pytest.mark.parametrize("size", [(240, 320), (480, 640)], ids=str)
def test_a_box_holds_its_object_to_the_pixel(kind: int, size: tuple[int, int]) -> None:
    found = alone(kind, size)
    assert len(found) >= 10
    for frame, changed in found:
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        shown = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        np.testing.assert_allclose(shown, frame.boxes[0], atol=2.0)
        assert np.abs(shown - frame.boxes[0]).mean() < 1.2
        assert frame.class_ids.tolist() == [kind]
        assert len(frame.ignored) == 0


@pytest.mark.parametrize("kind", KINDS, ids=LABELS)
def test_an_object_that_nothing_hides_is_seen_whole(kind: int) -> None:
    assert all(frame.visible[0] == 1.0 for frame, _ in alone(kind, (240, 320)))


def test_any_frame_is_the_same_in_any_order_and_from_any_instance() -> None:
    spec = SceneSpec(objects=8, seed=5)
    one, other = Scene(spec), Scene(spec)
    forward = [one.frame(index) for index in (0, 100, 7000)]
    for index, expected in zip((7000, 100, 0), reversed(forward), strict=True):
        again = other.frame(index)
        for name in ("image", "boxes", "ids", "class_ids", "visible", "keypoints", "ignored"):
            np.testing.assert_array_equal(getattr(again, name), getattr(expected, name))


def test_frames_are_the_callers_own() -> None:
    scene = Scene(SceneSpec(objects=2, noise=0))
    first = scene.frame(3)
    kept = first.image.copy()
    first.image[:] = 0
    np.testing.assert_array_equal(scene.frame(3).image, kept)


def test_a_seed_is_a_scene_of_its_own() -> None:
    one, other = (Scene(SceneSpec(seed=seed)).frame(10) for seed in (1, 2))
    assert np.mean(one.image != other.image) > 0.5
    assert one.boxes.shape != other.boxes.shape or not np.allclose(one.boxes, other.boxes)


def test_movement_is_by_the_clock_and_not_by_the_frame_rate() -> None:
    slow, fast = Scene(SceneSpec(fps=10, seed=2)), Scene(SceneSpec(fps=30, seed=2))
    for second in range(5):
        one, other = slow.frame(second * 10), fast.frame(second * 30)
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


def test_objects_scale_with_the_picture() -> None:
    small, large = (Scene(SceneSpec(size=size, objects=3, seed=1)).frame(40) for size in ((240, 320), (480, 640)))
    np.testing.assert_array_equal(small.ids, large.ids)
    np.testing.assert_allclose(small.boxes * 2, large.boxes, atol=4)


def test_objects_move_smoothly_enter_leave_and_hide_each_other() -> None:
    """In 20 seconds: no jumps, ids that are never given twice, and every event that a tracker must survive."""
    scene = Scene(SceneSpec(objects=8, seed=4))
    last: dict[int, tuple[int, npt.NDArray[np.float32], int]] = {}
    returned, hidden = 0, 0
    for index in range(600):
        frame = scene.frame(index)
        assert len(set(frame.ids.tolist())) == len(frame.ids)
        hidden += int((frame.visible < 0.9).sum())
        for box, name, kind in zip(frame.boxes, frame.ids.tolist(), frame.class_ids.tolist(), strict=True):
            centre = (box[:2] + box[2:]) / 2
            if name in last:
                before, place, was = last[name]
                assert was == kind
                assert np.abs(centre - place).max() <= 6 * (index - before)
                returned += before != index - 1
            last[name] = (index, centre, kind)
    ended = {name for name, (index, _, _) in last.items() if index < 500}
    assert len(last) >= 20
    assert len(ended) >= 10
    assert returned >= 3
    assert hidden >= 100
    assert {kind for _, _, kind in last.values()} == set(KINDS)


def test_truth_lies_within_the_picture_and_is_sorted() -> None:
    scene = Scene(SceneSpec(objects=10, seed=9))
    for index in range(0, 900, 31):
        frame = scene.frame(index)
        boxes = np.concatenate([frame.boxes, frame.ignored])
        assert (boxes >= 0).all()
        assert (boxes <= [320, 240, 320, 240]).all()
        assert (frame.boxes[:, 2:] > frame.boxes[:, :2]).all()
        assert (np.diff(frame.ids) > 0).all()
        assert ((frame.visible >= 0.35) & (frame.visible <= 1)).all()
        assert len(frame.boxes) + len(frame.ignored) <= 10


def test_what_is_mostly_hidden_is_ignored_and_not_truth() -> None:
    scene = Scene(SceneSpec(objects=30, seed=3))
    frames = [scene.frame(index) for index in range(0, 600, 50)]
    assert sum(len(frame.ignored) for frame in frames) > 30
    assert sum(len(frame.boxes) for frame in frames) > 60


def test_keypoints_are_those_of_the_person_in_the_box() -> None:
    seen = 0
    for frame, changed in alone(PERSON, (480, 640)):
        points, (x1, y1, x2, y2) = frame.keypoints[0], frame.boxes[0]
        assert points.shape == (17, 3)
        assert (points[:, 2] == 1).all()
        assert (points[:, :2] >= [x1, y1]).all()
        assert (points[:, :2] <= [x2, y2]).all()
        columns, rows = points[5:, 0].astype(int), points[5:, 1].astype(int)
        assert changed[rows, columns].all()  # shoulders to ankles lie on the body
        assert points[0, 1] < points[5, 1] < points[11, 1] < points[13, 1] < points[15, 1]
        seen += 1
    assert seen >= 10


def test_only_persons_have_keypoints() -> None:
    frame = Scene(SceneSpec(objects=20, seed=6)).frame(50)
    persons = frame.class_ids == PERSON
    assert persons.any()
    assert not persons.all()
    assert (frame.keypoints[~persons] == 0).all()
    assert (frame.keypoints[persons][:, :, :2].any(axis=(1, 2))).all()


def test_only_the_wanted_classes_appear() -> None:
    scene = Scene(SceneSpec(objects=12, classes=(1, 3)))
    assert set(np.concatenate([scene.frame(index).class_ids for index in range(0, 900, 60)]).tolist()) == {1, 3}


def test_light_changes_slowly_and_noise_from_frame_to_frame() -> None:
    scene = Scene(SceneSpec(objects=0, noise=3))
    first, second, later = (scene.frame(index).image.astype(np.float32) for index in (0, 1, 300))
    assert 1 < np.abs(first - second).mean() < 8
    assert abs(first.mean() - second.mean()) < 1
    assert abs(first.mean() - later.mean()) > 5
    still = Scene(SceneSpec(objects=0, noise=0))
    assert np.abs(still.frame(0).image.astype(int) - still.frame(1).image).max() <= 2


def test_an_empty_scene_has_truth_of_the_right_shapes() -> None:
    frame = Scene(SceneSpec(objects=0)).frame(0)
    assert frame.boxes.shape == (0, 4)
    assert frame.keypoints.shape == (0, 17, 3)
    assert frame.ignored.shape == (0, 4)
    assert frame.ids.dtype == frame.class_ids.dtype == np.int64


def test_a_keypoint_outside_the_picture_has_no_score() -> None:
    scene = Scene(SceneSpec(objects=10, seed=1, classes=(PERSON,)))
    points = np.concatenate([scene.frame(index).keypoints.reshape(-1, 3) for index in range(0, 600, 7)])
    within = ((points[:, :2] >= 0) & (points[:, :2] < [320, 240])).all(axis=1)
    assert (points[:, 2] == within).all()
    assert not within.all()


def test_a_person_half_behind_something_is_seen_by_half() -> None:
    """The share is counted in pixels: those drawn alone, less those that later objects cover."""
    spec = SceneSpec(size=(480, 640), objects=2, noise=0)
    compared = 0
    for seed in range(40):
        for index in range(0, 300, 25):
            frame = Scene(replace(spec, seed=seed)).frame(index)
            if len(frame.ids) != 2 or frame.class_ids[0] != PERSON or not inside(frame.boxes[0], spec.size):
                continue
            first, alone_there = drawn(replace(spec, seed=seed, objects=1), index)
            if len(first.ids) != 1 or not np.allclose(first.boxes[0], frame.boxes[0]):
                continue
            both = frame.image[alone_there]
            same = (both == first.image[alone_there]).all(axis=1).mean()
            assert frame.visible[0] == pytest.approx(same, abs=0.03)
            compared += same < 0.9
    assert compared >= 3


@pytest.mark.parametrize("size", [(480, 100), (480, 64), (32, 480), (32, 32)], ids=str)
def test_any_shape_of_picture_will_do(size: tuple[int, int]) -> None:
    scene = Scene(SceneSpec(size=size, objects=8))
    assert sum(len(scene.frame(index).ids) for index in range(0, 600, 40)) > 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": (16, 320)}, "at least 32"),
        ({"objects": 201}, "0 to 200"),
        ({"objects": -1}, "0 to 200"),
        ({"fps": 0.0}, "above 0"),
        ({"noise": -1.0}, "from 0"),
        ({"seed": -1}, "from 0"),
        ({"classes": ()}, "0 to 3"),
        ({"classes": (4,)}, "0 to 3"),
    ],
)
def test_a_spec_that_cannot_be_drawn_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(SceneSpec(), **change)  # type: ignore[arg-type]
