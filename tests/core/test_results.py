"""True boxes where the network sees them: placed, cut, moved and mirrored."""

from __future__ import annotations

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.protocols import PlacedTruth, PointTruth
from edgecv.core.results import DetectionTruth
from edgecv.vision.image import geometry
from tests.moves import moved

SIZE = (40, 80)


def truth_of(
    *boxes: tuple[float, float, float, float], crowd: bool | None = None, area: bool = False
) -> DetectionTruth:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    sides = np.prod(array[:, 2:] - array[:, :2], axis=1)
    return DetectionTruth(
        array,
        np.arange(len(array)),
        None if crowd is None else np.full(len(array), crowd),
        (sides / 2).astype(np.float32) if area else None,
    )


def placed(truth: DetectionTruth, picture: tuple[int, int] = SIZE, **contract: object) -> DetectionTruth:
    wanted = InputContract(size=SIZE, **contract)  # type: ignore[arg-type]
    return truth.placed(geometry(picture, wanted), wanted.size)


def test_it_is_told_where_the_network_sees_it() -> None:
    assert isinstance(truth_of(), PlacedTruth)
    assert not isinstance(truth_of(), PointTruth)
    found = placed(truth_of((20, 10, 60, 30), area=True), (80, 160))
    assert found.boxes.tolist() == [[10, 5, 30, 15]]
    assert found.boxes.dtype == np.float32
    assert found.size == SIZE
    assert found.area is not None
    assert found.area.tolist() == [100]
    assert found.class_ids.tolist() == [0]
    assert found.crowd is not None
    assert not found.crowd.any()


def test_letterbox_puts_it_between_the_bars() -> None:
    found = placed(truth_of((0, 0, 40, 40)), (40, 40), resize="letterbox")
    assert found.boxes.tolist() == [[20, 0, 60, 40]]


def test_what_a_crop_cuts_off() -> None:
    # A square input of 40 pixels out of the middle of 40 x 80.
    wanted = InputContract(size=(40, 40), resize="crop", crop_ratio=1.0)
    given = truth_of((0, 0, 15, 20), (10, 0, 30, 20), (0, 0, 30, 20), (15, 0, 25, 20), area=True)
    found = given.placed(geometry(SIZE, wanted), wanted.size)
    assert found.class_ids.tolist() == [1, 2, 3], "the first one is outside"
    assert found.boxes.tolist() == [[0, 0, 10, 20], [0, 0, 10, 20], [0, 0, 5, 20]]
    assert found.crowd is not None
    assert found.crowd.tolist() == [False, False, False]
    assert found.area is not None
    assert found.area.tolist() == [100, 100, 50]
    rather_gone = truth_of((0, 0, 26, 20)).placed(geometry(SIZE, wanted), wanted.size)
    assert rather_gone.boxes.tolist() == [[0, 0, 6, 20]]
    assert rather_gone.crowd is not None
    assert rather_gone.crowd.tolist() == [True]


def test_moved_and_mirrored() -> None:
    found = placed(truth_of((10, 10, 20, 30), (70, 0, 80, 10), crowd=False))
    there = moved(found, down=5, right=4, mirrored=False)
    assert there.boxes.tolist() == [[14, 15, 24, 35], [74, 5, 80, 15]]
    mirrored = moved(found, down=5, right=4, mirrored=True)
    assert mirrored.boxes.tolist() == [[56, 15, 66, 35], [0, 5, 6, 15]]
    assert mirrored.class_ids.tolist() == [0, 1]
    away = moved(found, down=0, right=9, mirrored=False)
    assert away.crowd is not None
    assert away.crowd.tolist() == [False, True]
    assert len(moved(found, down=0, right=10, mirrored=False).boxes) == 1


def test_crowds_stay_crowds() -> None:
    found = moved(placed(truth_of((10, 10, 20, 30), crowd=True)), down=1, right=1, mirrored=True)
    assert found.crowd is not None
    assert found.crowd.tolist() == [True]


def test_empty() -> None:
    empty = moved(placed(truth_of()), down=1, right=2, mirrored=True)
    assert empty.boxes.shape == (0, 4)


def test_a_box_without_area_is_gone() -> None:
    assert len(placed(truth_of((5, 5, 5, 9), area=True)).boxes) == 0
