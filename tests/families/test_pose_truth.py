"""True keypoints follow their picture when it is cut, resized, moved or mirrored."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.protocols import MapTruth, PointTruth, Sample
from edgecv.errors import DataError
from edgecv.families.pose_truth import COCO_KEYPOINTS, COCO_MIRROR, PoseTruth, mirror_of
from tests.moves import moved

SPOTS = ((20, 30), (44, 12), (33, 55))


def marked(size: tuple[int, int] = (64, 48)) -> tuple[np.ndarray, PoseTruth]:
    """A black picture with three bright spots, each of another channel, and their places."""
    image = np.zeros((*size, 3), np.uint8)
    for channel, place in enumerate(SPOTS):
        plane = np.zeros(size, np.uint8)
        cv2.circle(plane, place, 2, 255, -1)
        image[..., channel] = plane
    points = np.array([[[x + 0.5, y + 0.5, 2] for x, y in SPOTS]], np.float32)
    box = np.array([[10, 5, 47, 60]], np.float32)
    return image, PoseTruth(points, box, np.array([500.0], np.float32), np.zeros(1, bool), size, (1, 0, 2))


def centres(array: np.ndarray) -> np.ndarray:
    """Where the spots of `(3, h, w)` are, x and y."""
    found = []
    for plane in array:
        y, x = np.nonzero(plane > plane.max() / 2)
        found.append((x.mean() + 0.5, y.mean() + 0.5))
    return np.array(found)


class Pictures:
    """A reader of one picture, many times."""

    def __init__(self, count: int) -> None:
        self.ids = [str(index) for index in range(count)]
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        image, truth = marked()
        return Sample(self.ids[index], image, truth)

    def sha256(self, index: int) -> str:
        return ""

    def fingerprint(self) -> str:
        return ""


@pytest.mark.parametrize("augment", ["none", "crop", "crop-flip"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_batches_move_points_with_their_picture(augment: str, resize: str) -> None:
    pytest.importorskip("torch")  # training is the host half's
    from edgecv.optimize.batches import make_batches

    contract = InputContract(size=(96, 96), color="bgr", resize=resize, pad_value=0)  # type: ignore[arg-type]
    batches = make_batches(Pictures(12), contract, batch_size=12, shuffle_seed=1, augment=augment)  # type: ignore[arg-type]
    inputs, truths = next(iter(batches(0)))
    sides = set()
    for array, truth in zip(inputs, truths, strict=True):
        assert truth.size == (96, 96)
        places = centres(array)
        mirrored = abs(truth.keypoints[0, 0, 0] - places[0, 0]) > 2
        order = [1, 0, 2] if mirrored else [0, 1, 2]  # in a mirrored picture left is right
        seen = truth.labelled[0]
        # A spot at the edge is cut, so that its middle is elsewhere.
        seen &= ((truth.keypoints[0, :, :2] > 6) & (truth.keypoints[0, :, :2] < 90)).all(axis=1)
        np.testing.assert_allclose(truth.keypoints[0, seen, :2], places[order][seen], atol=1.2)
        sides.add(mirrored)
    assert sides == ({False, True} if augment == "crop-flip" else {False})


def test_network_coordinates() -> None:
    _, truth = marked()
    moved = truth.to_network(InputContract(size=(128, 48), resize="stretch"))
    np.testing.assert_allclose(moved.keypoints[0, 0], [20.5, 61.0, 2])
    np.testing.assert_allclose(moved.boxes[0], [10, 10, 47, 120])
    assert moved.area[0] == pytest.approx(1000.0)
    cut = truth.to_network(InputContract(size=(32, 32), resize="crop", crop_ratio=0.5))
    assert cut.labelled.tolist() == [[True, False, False]], "what the contract cuts off cannot be found"


def test_cutting_out_and_moving_away() -> None:
    _, truth = marked()
    part = truth.cut((15, 20, 40, 60))
    assert part.size == (40, 25)
    assert part.labelled.tolist() == [[True, False, True]]
    np.testing.assert_allclose(part.keypoints[0, 0, :2], [5.5, 10.5])
    np.testing.assert_allclose(part.boxes[0], [-5, -15, 32, 40])
    away = moved(truth, down=100, right=0, mirrored=False)
    assert not away.labelled.any()
    assert away.ignored.all()


def test_mirroring_twice_changes_nothing() -> None:
    _, truth = marked()
    there = moved(truth, down=0, right=0, mirrored=True)
    np.testing.assert_allclose(there.boxes[0], [1, 5, 38, 60])
    back = moved(there, down=0, right=0, mirrored=True)
    np.testing.assert_allclose(back.keypoints, truth.keypoints)
    unknown = PoseTruth(truth.keypoints, truth.boxes, truth.area, truth.crowd, truth.size)
    with pytest.raises(DataError, match="crop instead of crop-flip"):
        moved(unknown, down=0, right=0, mirrored=True)


def test_left_and_right_by_name() -> None:
    assert COCO_MIRROR[COCO_KEYPOINTS.index("left_wrist")] == COCO_KEYPOINTS.index("right_wrist")
    assert COCO_MIRROR[0] == 0
    assert mirror_of(("left_a", "right_a", "b")) == (1, 0, 2)
    assert mirror_of(("left_a", "b")) == ()
    assert mirror_of(("a", "b")) == ()


def test_it_is_points_and_no_map() -> None:
    _, truth = marked()
    assert isinstance(truth, PointTruth)
    assert not isinstance(truth, MapTruth)
    with pytest.raises(ValueError, match=r"\(N, K, 3\)"):
        PoseTruth(truth.keypoints[0], truth.boxes, truth.area, truth.crowd, truth.size)
    with pytest.raises(ValueError, match="do not fit 1 persons"):
        PoseTruth(truth.keypoints, truth.boxes[:0], truth.area, truth.crowd, truth.size)
