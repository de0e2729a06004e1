"""Anomaly maps: what a network's outputs mean, and how defects are counted; areas are held against scikit-learn."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.protocols import Family, PartsMetric
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families import anomaly
from edgecv.families.anomaly_map import AnomalyMap, AnomalyTruth
from edgecv.families.anomaly_metric import PixelCurves, ScoreParts, placements

SPEC = FamilySpec("anomaly", ("defect",), score_threshold=0.5)
CONTRACT = InputContract(size=(32, 32))


def spec(**options: object) -> FamilySpec:
    return FamilySpec("anomaly", ("defect",), score_threshold=0.5, options=options)


def problems(*shapes: tuple[int, ...], given: FamilySpec = SPEC) -> list[str]:
    return anomaly.problems(given, [TensorSpec("x", shape, "float32") for shape in shapes])


def result(score: float, *, peak: tuple[int, int] | None = None) -> AnomalyMap:
    values = np.zeros((16, 16), np.float32)
    if peak is not None:
        values[peak] = score
    return AnomalyMap(values, score, 0.5)


def test_the_module_is_a_family() -> None:
    module: Family = families.get("anomaly")
    assert module.METRICS == ("auroc",)
    assert isinstance(module.metric(SPEC, "auroc"), PartsMetric)
    with pytest.raises(UsageError, match="no metric 'pro'"):
        module.metric(SPEC, "pro")


def test_outputs_that_fit_and_those_that_do_not() -> None:
    for shapes in ([(1, 1, 8, 8)], [(1, 8, 8, 1)], [(1, 8, 8)], [(1, 1), (1, 1, 8, 8)]):
        assert problems(*shapes) == []
    assert "(1, 2, 8, 8)" in problems((1, 2, 8, 8))[0]
    assert problems((1, 1, 8, 8), (1, 1, 4, 4)) != []
    assert problems((1, 1)) != []
    assert "no option 'tip'" in problems((1, 1, 8, 8), given=spec(tip=1))[0]
    assert "above 0" in problems((1, 1, 8, 8), given=spec(unit=0))[0]
    assert "take head away" in problems((1, 1, 8, 8), given=FamilySpec("anomaly", ("defect",), head="x"))[0]


def test_the_score_is_the_highest_value_or_the_mean_of_a_few() -> None:
    plane = np.zeros((1, 1, 8, 8), np.float32)
    plane[0, 0, 2, 5], plane[0, 0, 6, 1] = 0.8, 0.4
    found = anomaly.decode([plane], SPEC, CONTRACT, picture=(64, 128))
    assert found.score == pytest.approx(0.8)
    assert found.values.shape == (64, 128)
    assert found.defect
    assert found.verdict == "defect"
    assert abs(found.peak[0] - 5.5 * 16) <= 8
    assert abs(found.peak[1] - 2.5 * 8) <= 4
    assert anomaly.decode([plane], spec(top=2), CONTRACT).score == pytest.approx(0.6)
    assert anomaly.decode([plane], spec(top=1000), CONTRACT).score == pytest.approx(1.2 / 64)
    assert anomaly.decode([plane], spec(unit=2.0), CONTRACT).score == pytest.approx(0.4)
    given = anomaly.decode([plane, np.full((1, 1), 3.0, np.float32)], spec(unit=2.0), CONTRACT)
    assert given.score == pytest.approx(1.5)


def test_the_padding_of_a_letterbox_counts_for_nothing() -> None:
    plane = np.zeros((1, 1, 8, 8), np.float32)
    plane[0, 0, 0], plane[0, 0, 4, 4] = 9.0, 0.7  # the top row lies in the padding of a wide picture
    found = anomaly.decode([plane], SPEC, InputContract(size=(32, 32), resize="letterbox"), picture=(20, 40))
    assert found.score == pytest.approx(0.7)
    assert found.values.shape == (20, 40)
    assert found.values.max() < 0.71


def test_broken_outputs_are_refused() -> None:
    with pytest.raises(ModelError, match="1 values of the anomaly map are NaN"):
        anomaly.decode([np.array([[[[0.0, np.nan]]]], np.float32)], SPEC, CONTRACT)
    with pytest.raises(ModelError, match="shape"):
        anomaly.decode([np.zeros((1, 3, 8, 8), np.float32)], SPEC, CONTRACT)


def test_results_in_words_and_numbers() -> None:
    found = result(0.9, peak=(3, 7))
    assert found.words() == "defect 0.90 (limit 0.50)"
    assert result(0.2).words().startswith("ok 0.20")
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["verdict"] == "defect"
    assert plain["peak"] == [7, 3]
    assert plain["size"] == [16, 16]
    assert plain["area"] == pytest.approx(1 / 256, abs=1e-4)
    assert anomaly.agree(result(0.9), result(0.6))
    assert not anomaly.agree(result(0.9), result(0.2))
    assert anomaly.agree(result(0.505), result(0.495)), "at the limit itself, next to nothing decides"
    assert result(0.8).likeness(result(0.4)) == pytest.approx(0.5)


def test_the_overlay_is_warm_where_it_is_unusual() -> None:
    image = np.full((160, 160, 3), 120, np.uint8)
    values = np.zeros((80, 80), np.float32)
    values[30:40, 50:60] = 0.95
    AnomalyMap(values, 0.95, 0.5).draw(image, 0.5)
    spot, calm = image[66:74, 106:114].reshape(-1, 3).mean(axis=0), image[20:40, 20:40].reshape(-1, 3).mean(axis=0)
    assert spot[2] > spot[0] + 30, "red outweighs blue"
    assert np.allclose(calm, 120)
    assert tuple(image[0, 80]) == (50, 50, 220), "the frame is red"
    good = np.full((160, 160, 3), 120, np.uint8)
    AnomalyMap(np.zeros((80, 80), np.float32), 0.1, 0.5).draw(good, 0.5)
    assert tuple(good[0, 80]) == (60, 160, 60)


def test_the_area_is_that_of_scikit_learn_with_ties_and_counts() -> None:
    roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score
    random = np.random.default_rng(3)
    scores = np.round(random.normal(0, 1, 60), 1)
    defect = random.random(60) < 0.4
    parts = ScoreParts(scores, defect)
    counts = random.integers(0, 4, (20, 60))
    wanted = [roc_auc_score(defect, scores, sample_weight=row) for row in counts]
    assert parts.values(counts) == pytest.approx(wanted)
    again = families.parts_from(parts.arrays())
    assert again.values(counts) == pytest.approx(wanted)
    one_group = np.where(defect, 0, 1)[None]
    assert parts.values(one_group)[0] == 0.5
    shares = placements(scores, defect)
    area = roc_auc_score(defect, scores)
    assert shares[defect].mean() == pytest.approx(area)
    assert shares[~defect].mean() == pytest.approx(area)


def test_pixels_and_regions_by_hand_and_by_scikit_learn() -> None:
    roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score
    random = np.random.default_rng(5)
    curves, all_values, all_masks = PixelCurves(), [], []
    for _ in range(4):
        values = random.normal(0, 1, (24, 24)).astype(np.float32)
        mask = np.zeros((24, 24), np.uint8)
        mask[2:8, 3:9] = mask[15:17, 12:20] = 1
        values[mask > 0] += 1.0
        curves.add(values, mask)
        all_values.append(values)
        all_masks.append(mask)
    good = random.normal(0, 1, (24, 24)).astype(np.float32)
    curves.add(good, None)
    values, masks = np.stack([*all_values, good]), np.stack([*all_masks, np.zeros((24, 24), np.uint8)])
    found = curves.figures()
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), values.ravel()), abs=1e-3)
    assert found["pro"] == pytest.approx(slow_pro(values, masks), abs=5e-3)
    assert PixelCurves().figures() == {}


def slow_pro(values: np.ndarray, masks: np.ndarray) -> float:
    """The definition, threshold by threshold."""
    places, heights = [0.0], [0.0]
    for limit in np.sort(values.ravel())[::-1]:
        above = values >= limit
        shares = []
        for shown, mask in zip(above, masks, strict=True):
            count, regions = cv2.connectedComponents(mask, connectivity=8)
            shares += [shown[regions == number].mean() for number in range(1, count)]
        places.append(above[masks == 0].mean())
        heights.append(float(np.mean(shares)))
        if places[-1] > 0.3:
            break
    grid = np.linspace(0, 0.3, 3001)
    return float(np.interp(grid, places, heights).mean())


def test_one_perfect_and_one_blind_map() -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[4:6, 4:6] = 1
    sharp, blind = PixelCurves(), PixelCurves()
    sharp.add(mask.astype(np.float32), mask)
    blind.add(np.zeros((16, 16), np.float32), mask)
    assert sharp.figures() == {"pixel_auroc": pytest.approx(1.0), "pro": pytest.approx(1.0)}
    assert blind.figures()["pixel_auroc"] == pytest.approx(0.5)


def test_the_metric_counts_alarms_and_misses() -> None:
    metric = anomaly.metric(SPEC, "auroc")
    mask = np.zeros((16, 16), np.uint8)
    mask[3, 7] = 1
    for score, truth in ((0.1, False), (0.6, False), (0.9, True), (0.3, True)):
        metric.update(result(score, peak=(3, 7)), AnomalyTruth(truth, mask if truth else None))
    figures = metric.compute()
    assert figures.value == pytest.approx(0.75)
    assert figures.samples == 4
    assert figures.extras["false_alarms"] == 0.5
    assert figures.extras["missed"] == 0.5
    assert {"pixel_auroc", "pro"} <= set(figures.extras)
    assert figures.per_sample == pytest.approx((1.0, 0.5, 1.0, 0.5))


def test_defects_without_masks_are_judged_as_whole_pictures() -> None:
    metric = anomaly.metric(SPEC, "auroc")
    metric.update(result(0.1), AnomalyTruth(False))
    metric.update(result(0.9), AnomalyTruth(True))
    assert set(metric.compute().extras) == {"false_alarms", "missed"}


def test_truths_that_do_not_fit() -> None:
    metric = anomaly.metric(SPEC, "auroc")
    with pytest.raises(DataError, match="needs to know whether it shows a defect"):
        metric.update(result(0.1), 3)
    with pytest.raises(DataError, match="4 x 4 pixels and its picture 16 x 16"):
        metric.update(result(0.1), AnomalyTruth(True, np.ones((4, 4), np.uint8)))
    metric.update(result(0.1), AnomalyTruth(True))
    with pytest.raises(DataError, match="1 of 1 pictures show a defect"):
        metric.compute()


def test_the_loss_is_the_map_of_good_pictures() -> None:
    torch = pytest.importorskip("torch")
    outputs = torch.tensor([1.0, 3.0, 100.0]).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)
    truths = [AnomalyTruth(False), None, AnomalyTruth(True)]
    assert float(anomaly.loss(outputs, truths, SPEC, label_smoothing=0.0)) == pytest.approx(2.0)
    assert float(anomaly.loss(outputs[2:], truths[2:], SPEC, label_smoothing=0.0)) == 0.0
