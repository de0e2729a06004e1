"""Metrics of keypoints: against COCO's evaluation, against hand-made cases, and with pictures counted again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv import families
from edgecv.core.figures import AccuracyFigures
from edgecv.core.protocols import PartsMetric
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.core.results import Poses
from edgecv.data.readers import open_reader
from edgecv.errors import DataError, UsageError
from edgecv.families import pose
from edgecv.families.pose_metric import COCO_SIGMAS, sigmas_of, sizes_of
from edgecv.families.pose_parts import similarity
from edgecv.families.pose_truth import PoseTruth


def spec(**options: object) -> FamilySpec:
    return FamilySpec("pose", ("person",), head="movenet", options=options)


def truth_of(points: np.ndarray, seen: np.ndarray | None = None, **more: object) -> PoseTruth:
    count = len(points)
    third = np.full(points.shape[:2], 2.0) if seen is None else seen
    low, high = points.min(axis=1), points.max(axis=1)
    given = {
        "boxes": np.concatenate([low, high], axis=1).reshape(count, 4).astype(np.float32),
        "area": np.full(count, 900.0, np.float32),
        "crowd": np.zeros(count, bool),
        "size": (200, 200),
        **more,
    }
    return PoseTruth(np.concatenate([points, third[..., None]], axis=2).astype(np.float32), **given)  # type: ignore[arg-type]


def poses(points: np.ndarray, scores: list[float] | None = None) -> Poses:
    ones = np.ones((*points.shape[:2], 1))
    values = np.ones(len(points)) if scores is None else np.array(scores)
    return Poses(np.concatenate([points, ones], axis=2).astype(np.float32), values.astype(np.float32))


def random_pictures(seed: int, count: int) -> list[tuple[Poses, PoseTruth]]:
    """Pictures with persons, crowds and persons without labels; found near, found twice, missed and made up."""
    draws = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        persons, spare = int(draws.integers(0, 4)), int(draws.integers(0, 3))
        centres = draws.uniform(20, 180, (persons, 1, 2))
        points = centres + draws.normal(0, 12, (persons, 17, 2))
        seen = draws.choice([0.0, 1.0, 2.0], (persons, 17))
        seen[draws.random(persons) < 0.25] = 0
        truth = truth_of(
            points.reshape(persons, 17, 2),
            seen,
            area=draws.uniform(200, 4000, persons).astype(np.float32),
            crowd=draws.random(persons) < 0.15,
        )
        near = np.concatenate([points, points[: persons // 2]]) + draws.normal(0, 1, (persons + persons // 2, 1, 1))
        near = near + draws.normal(0, 2, near.shape) * draws.uniform(0, 1.5, (len(near), 1, 1))
        found = np.concatenate([near, draws.uniform(0, 200, (spare, 17, 2))])
        keep = draws.random(len(found)) < 0.85
        scores = draws.choice([0.2, 0.5, 0.6, 0.9], len(found))  # with equals
        made.append((poses(found[keep].reshape(-1, 17, 2), list(scores[keep])), truth))
    return made


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["oks_ap", "oks_ap50"])
def test_parts_give_what_coco_computes(seed: int, name: str) -> None:
    pytest.importorskip("faster_coco_eval")
    metric = pose.metric(spec(), name)
    for result, truth in random_pictures(seed, 30):
        metric.update(result, truth)
    figures = metric.compute()
    assert isinstance(metric, PartsMetric)
    parts = metric.parts()
    assert 0.05 < figures.value < 0.95, "a case at either end would prove little"
    assert parts.values(np.ones((1, 30), int))[0] == pytest.approx(figures.value, abs=1e-9)
    stored = families.parts_from(parts.arrays())
    counts = np.random.default_rng(seed).integers(0, 3, (5, 30))
    assert np.array_equal(stored.values(counts), parts.values(counts))


def test_counting_a_picture_twice_is_seeing_it_twice() -> None:
    pytest.importorskip("faster_coco_eval")
    pictures = random_pictures(3, 10)
    counts = np.array([2, 0, 1, 1, 3, 1, 0, 1, 1, 1])
    for name in ("oks_ap", "pck"):
        once, again = pose.metric(spec(), name), pose.metric(spec(), name)
        for pair in pictures:
            once.update(*pair)
        for pair, times in zip(pictures, counts, strict=True):
            for _ in range(times):
                again.update(*pair)
        assert once.parts().values(counts[None])[0] == pytest.approx(again.compute().value, abs=1e-9)
        assert once.parts().samples == 10
        assert once.parts().work > 0


def test_similarity_by_hand() -> None:
    truth = truth_of(np.array([[[10.0, 10.0], [20.0, 10.0], [30.0, 10.0]]]), np.array([[2.0, 1.0, 0.0]]))
    found = np.array([[[10, 10, 1], [23, 14, 1], [99, 99, 1]]], np.float32)
    sigmas = np.array([0.1, 0.1, 0.1])
    expected = (1.0 + np.exp(-25 / (2 * 900 * 0.2**2))) / 2
    assert similarity(found, truth, sigmas)[0, 0] == pytest.approx(expected, rel=1e-6)


def test_correct_keypoints_and_mean_error() -> None:
    points = np.array([[[0.0, 0.0], [100.0, 0.0], [0.0, 50.0]]])
    metric = pose.metric(spec(), "pck")
    shifted = points + np.array([[[0.0, 5.0], [0.0, 10.0], [0.0, 15.0]]])
    metric.update(poses(shifted), truth_of(points))
    metric.update(poses(points[:0]), truth_of(points))
    metric.update(poses(points), truth_of(points, np.zeros((1, 3))))
    figures = metric.compute()
    assert figures.value == pytest.approx(2 / 6), "two of three are within a tenth of 100; the other person is missed"
    assert figures.extras["nme"] == pytest.approx((0.1 + 1.0) / 2)
    assert figures.per_sample == pytest.approx((2 / 3, 0.0, 1.0))
    assert figures.samples == 3
    assert metric.parts().values(np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]])).tolist() == pytest.approx([2 / 3, 0, 0])


def test_the_nearest_pose_counts() -> None:
    points = np.array([[[0.0, 0.0], [100.0, 0.0], [0.0, 50.0]]])
    metric = pose.metric(spec(), "pck")
    metric.update(poses(np.concatenate([points + 70, points + 1])), truth_of(points))
    assert metric.compute().value == 1.0


@pytest.mark.parametrize(
    ("rule", "size"), [("keypoints", 100), ("box", 60), ("area", 30), ([0, 2], 50), ((1, 2), np.hypot(100, 50))]
)
def test_what_a_distance_is_measured_in(rule: object, size: float) -> None:
    points = np.array([[[0.0, 0.0], [100.0, 0.0], [0.0, 50.0]]])
    truth = truth_of(points, boxes=np.array([[0, 0, 40, 60]], np.float32))
    assert sizes_of(truth, rule)[0] == pytest.approx(size)
    metric = pose.metric(spec(pck_size=rule, pck_share=0.5), "pck")
    metric.update(poses(points + np.array([[[0.0, size * 0.49], [0.0, size * 0.51], [0.0, 0.0]]])), truth)
    assert metric.compute().value == pytest.approx(2 / 3)


def test_a_person_whose_size_nobody_knows_does_not_count() -> None:
    points = np.array([[[0.0, 0.0], [100.0, 0.0], [0.0, 50.0]]])
    truth = truth_of(points, np.array([[2.0, 2.0, 0.0]]))
    assert sizes_of(truth, [0, 2])[0] == 0
    with pytest.raises(DataError, match="there are 3 keypoints"):
        sizes_of(truth, [0, 3])


def test_crowds_neither_help_nor_harm() -> None:
    pytest.importorskip("faster_coco_eval")
    points = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
    metric = pose.metric(spec(), "oks_ap")
    metric.update(poses(points), truth_of(points))
    crowd = truth_of(points, crowd=np.array([True]))
    metric.update(poses(np.concatenate([points, points])), crowd)
    figures = metric.compute()
    assert figures.value == pytest.approx(1.0)
    assert figures.per_sample == (1.0, 1.0)
    assert figures.extras["oks_ar20"] == pytest.approx(1.0)


def test_nothing_found_is_zero() -> None:
    pytest.importorskip("faster_coco_eval")
    points = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
    metric = pose.metric(spec(), "oks_ap")
    metric.update(poses(points[:0]), truth_of(points))
    assert metric.compute().value == 0.0
    assert metric.parts().values(np.ones((1, 1), int))[0] == 0.0


def test_sigmas() -> None:
    assert tuple(sigmas_of(spec(), 17)) == COCO_SIGMAS
    assert sigmas_of(spec(sigmas=[0.1, 0.2]), 2).tolist() == [0.1, 0.2]
    with pytest.raises(DataError, match="0 numbers for 5 keypoints"):
        sigmas_of(spec(), 5)


def test_other_keypoints_with_sigmas_of_their_own() -> None:
    pytest.importorskip("faster_coco_eval")
    points = np.random.default_rng(0).uniform(0, 100, (1, 5, 2))
    metric = pose.metric(spec(sigmas=[0.05] * 5), "oks_ap")
    metric.update(poses(points + 1), truth_of(points))
    assert metric.compute().value == pytest.approx(metric.parts().values(np.ones((1, 1), int))[0])


def test_refusals() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
    metric = pose.metric(spec(), "pck")
    with pytest.raises(DataError, match="no labelled person"):
        metric.compute()
    with pytest.raises(DataError, match="coco-keypoints"):
        metric.update(poses(points), poses(points))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="17 keypoints, the model 5"):
        metric.update(poses(points[:, :5]), truth_of(points))
    with pytest.raises(UsageError, match="allowed: oks_ap, oks_ap50, pck"):
        pose.metric(spec(), "ap")


def faces_judged(shift: float, count: int = 3, **options: object) -> tuple[PartsMetric, AccuracyFigures]:
    """Faces whose eyes (points 0 and 1) are 50 pixels apart, found ``shift``, twice it, ... pixels to the right."""
    metric = pose.metric(spec(pck_size=[0, 1], **options), "nme_auc")
    points = np.array([[[40.0, 60], [90, 60], [65, 90], [55, 110], [75, 110]]])
    for number in range(count):
        metric.update(poses(points + np.array([shift * number, 0])), truth_of(points))
    assert isinstance(metric, PartsMetric)
    return metric, metric.compute()


def test_faces_lie_under_the_curve_of_their_errors() -> None:
    metric, figures = faces_judged(2.0)  # errors 0, 0.04 and 0.08 of the distance of the eyes
    assert figures.extras["nme"] == pytest.approx(0.04)
    assert figures.per_sample == pytest.approx((1.0, 0.6, 0.2))
    assert figures.value == figures.extras["nme_auc"] == pytest.approx(0.6)
    assert figures.extras["nme_failures"] == 0.0
    _, narrow = faces_judged(2.0, nme_limit=0.05)
    assert narrow.value == pytest.approx((1 + 0.2 + 0) / 3)
    assert narrow.extras["nme_failures"] == pytest.approx(1 / 3)
    assert "oks_ap" not in narrow.extras
    errors = np.array([0.0, 0.04, 0.08])
    curve = [(errors <= e).mean() for e in np.linspace(0, 0.1, 20001)]
    assert figures.value == pytest.approx(np.mean(curve), abs=1e-4)
    parts = metric.parts()
    again = families.parts_from(parts.arrays())
    counts = np.array([[1, 1, 1], [0, 2, 1]])
    np.testing.assert_allclose(again.values(counts), [0.6, (2 * 0.6 + 0.2) / 3])


@pytest.mark.parametrize(
    ("name", "count", "eyes"),
    [("300w", 68, [36, 45]), ("wflw", 98, [60, 72]), ("cofw", 29, [8, 9]), ("aflw", 19, "box")],
)
def test_landmarks_of_real_faces(shared_data: Path, name: str, count: int, eyes: object) -> None:
    """The usual sizes: outer eye corners (300W, WFLW), eyes (COFW), the face's box (AFLW)."""
    file = shared_data / "faces/landmarks" / name / "annotations.json"
    reader = open_reader(DataSpec(kind="coco-keypoints", path=str(file)), base=Path(), labels=["face"])
    truth = reader[0].truth
    assert truth.keypoints.shape == (1, count, 3)
    assert (truth.keypoints[0, :, :2].max(axis=0) <= reader[0].image.shape[1::-1]).all()
    size = float(sizes_of(truth, eyes)[0])
    assert 15 < size < 400
    metric = pose.metric(FamilySpec("pose", ("face",), head="regression", options={"pck_size": eyes}), "nme_auc")
    metric.update(poses(truth.keypoints[..., :2] + np.array([0.03 * size, 0.04 * size])), truth)
    figures = metric.compute()
    assert figures.extras["nme"] == pytest.approx(0.05, rel=1e-3)
    assert figures.value == pytest.approx(0.5, rel=1e-2)
