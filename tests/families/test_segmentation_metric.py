"""The metrics over pixels: against scikit-learn, over resamples, stored and read back."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from edgecv import families
from edgecv.core.protocols import PartsMetric
from edgecv.core.recipe import FamilySpec
from edgecv.errors import ArtifactError, DataError
from edgecv.families import segmentation
from edgecv.families.segmentation_map import NO_CLASS, ClassMap, MaskTruth
from edgecv.families.segmentation_metric import METRICS, PixelMetric, PixelParts
from edgecv.measure.accuracy import load_parts, save_parts
from edgecv.measure.gate import judge_parts

LABELS = ("sky", "road", "tree", "car", "sign")
SPEC = FamilySpec("segmentation", LABELS)


def pictures(seed: int, count: int = 12) -> list[tuple[ClassMap, MaskTruth]]:
    """Random maps of different sizes, three quarters right, one pixel in ten not judged; no true pixel is a sign."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        size = tuple(random.integers(8, 30, 2))
        true = random.choice(4, p=[0.5, 0.3, 0.15, 0.05], size=size).astype(np.uint8)
        found = np.where(random.random(size) < 0.75, true, random.integers(0, 5, size)).astype(np.uint8)
        true[random.random(size) < 0.1] = NO_CLASS
        made.append((ClassMap(found, LABELS), MaskTruth(true)))
    return made


def counted(pairs: list[tuple[ClassMap, MaskTruth]], name: str, spec: FamilySpec = SPEC) -> PixelMetric:
    metric = segmentation.metric(spec, name)
    for result, truth in pairs:
        metric.update(result, truth)
    return metric


def flat(pairs: list[tuple[ClassMap, MaskTruth]]) -> tuple[np.ndarray, np.ndarray]:
    true = np.concatenate([truth.classes.ravel() for _, truth in pairs])
    found = np.concatenate([result.classes.ravel() for result, _ in pairs])
    return true[true != NO_CLASS], found[true != NO_CLASS]


def test_metrics_are_those_of_scikit_learn() -> None:
    judge = pytest.importorskip("sklearn.metrics")
    pairs = pictures(0)
    true, found = flat(pairs)
    there = [0, 1, 2, 3]
    expected = {
        "miou": judge.jaccard_score(true, found, labels=there, average="macro"),
        "dice": judge.f1_score(true, found, labels=there, average="macro"),
        "pixel_accuracy": float((true == found).mean()),
    }
    for name in METRICS:
        figures = counted(pairs, name).compute()
        assert figures.metric == name
        assert figures.samples == len(figures.per_sample) == len(pairs)
        assert figures.value == pytest.approx(expected[name], abs=1e-12)
        for other, value in expected.items():
            assert figures.extras[other] == pytest.approx(value, abs=1e-12)
    table = judge.confusion_matrix(true, found, labels=range(5))
    for index, label in enumerate(LABELS[:4]):
        union = table[index].sum() + table[:, index].sum() - table[index, index]
        assert figures.extras[f"iou {label}"] == pytest.approx(table[index, index] / union)
    assert "iou sign" not in figures.extras
    assert figures.extras["worst_class_iou"] == min(figures.extras[f"iou {label}"] for label in LABELS[:4])


def test_each_picture_has_its_own_value() -> None:
    pairs = pictures(1, 3)
    figures = counted(pairs, "miou").compute()
    for pair, value in zip(pairs, figures.per_sample, strict=True):
        assert value == pytest.approx(counted([pair], "miou").compute().value)


@pytest.mark.parametrize("name", METRICS)
def test_a_resample_is_the_metric_of_the_repeated_pictures(name: str) -> None:
    pairs = pictures(2, 6)
    parts = counted(pairs, name).parts()
    counts = np.array([[1] * 6, [2, 0, 0, 3, 0, 1], [0, 0, 6, 0, 0, 0]])
    for row, value in zip(counts, parts.values(counts), strict=True):
        repeated = [pair for pair, times in zip(pairs, row, strict=True) for _ in range(times)]
        assert value == pytest.approx(counted(repeated, name).compute().value, abs=1e-12)


def test_ten_thousand_resamples_are_cheap() -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 2000, (1000, 21))
    right = (true * random.uniform(0.5, 1, true.shape)).astype(np.int64)
    found = right + random.integers(0, 500, true.shape)
    one = PixelParts("miou", right, found, true)
    other = PixelParts("miou", (right * 0.99).astype(np.int64), found, true)
    before = time.process_time()
    drop = judge_parts(one, other, max_drop=0.05)
    assert time.process_time() - before < 15
    assert drop.resamples == 10_000
    assert drop.outcome == "pass"
    assert drop.interval.low < drop.drop < drop.interval.high


def test_the_gate_takes_it_as_a_metric_of_parts() -> None:
    assert isinstance(segmentation.metric(SPEC, "miou"), PartsMetric)


def test_parts_are_stored_and_read_back(tmp_path: Path) -> None:
    parts = counted(pictures(3), "dice").parts()
    save_parts(tmp_path / "parts.npz", parts)
    again = load_parts(tmp_path / "parts.npz")
    counts = np.random.default_rng(0).integers(0, 3, (5, parts.samples))
    assert np.array_equal(again.values(counts), parts.values(counts))
    assert again.work == parts.work == 3 * 12 * 5
    arrays = {key: value for key, value in parts.arrays().items() if key != "true"}
    with pytest.raises(ArtifactError, match="lack 'true'"):
        families.parts_from(arrays)


def test_void_pixels_are_not_judged() -> None:
    true = np.array([[0, 0, 1, 4, 4]], np.uint8)
    found = np.array([[0, 4, 1, 0, 4]], np.uint8)
    spec = FamilySpec("segmentation", LABELS, options={"void": "sign"})
    figures = counted([(ClassMap(found, LABELS), MaskTruth(true))], "miou", spec).compute()
    assert figures.extras["iou sky"] == 0.5  # one of two; the pixel of the void found as sky is no error
    assert figures.extras["iou road"] == 1.0
    assert figures.value == 0.75
    assert figures.extras["pixel_accuracy"] == pytest.approx(2 / 3)


def test_pixels_that_were_not_seen_are_wrong() -> None:
    found = np.array([[0, NO_CLASS]], np.uint8)
    figures = counted([(ClassMap(found, LABELS), MaskTruth(np.zeros((1, 2), np.uint8)))], "miou").compute()
    assert figures.value == 0.5


def test_a_picture_without_judged_pixels_has_nothing_wrong() -> None:
    blank = (ClassMap(np.zeros((4, 4), np.uint8), LABELS), MaskTruth(np.full((4, 4), NO_CLASS, np.uint8)))
    both = [blank, *pictures(4, 1)]
    figures = counted(both, "miou").compute()
    assert figures.per_sample[0] == 1.0
    assert figures.value == counted(both[1:], "miou").compute().value
    with pytest.raises(DataError, match="no pixel of any mask is judged"):
        counted([blank], "miou").compute()


def test_truths_that_do_not_fit_are_refused() -> None:
    result = ClassMap(np.zeros((4, 5), np.uint8), LABELS)
    metric = segmentation.metric(SPEC, "miou")
    with pytest.raises(DataError, match="int; segmentation needs a MaskTruth"):
        metric.update(result, 3)
    with pytest.raises(DataError, match="4 x 5 pixels and its picture 5 x 4"):
        metric.update(result, MaskTruth(np.zeros((5, 4), np.uint8)))
    with pytest.raises(DataError, match=r"true class is 5; allowed are 0\.\.4"):
        metric.update(result, MaskTruth(np.full((4, 5), 5, np.uint8)))
    with pytest.raises(DataError, match="no picture"):
        metric.compute()
