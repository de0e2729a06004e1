"""Verdicts: the paired bootstrap against theory and simulation, and the plain budgets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgecv.core.figures import AccuracyFigures, DropFigures, Interval, LatencyFigures, Percentiles
from edgecv.core.recipe import AccuracyBudget, Budgets, LatencyBudget
from edgecv.errors import MeasurementError
from edgecv.measure import gate
from edgecv.measure.gate import check_accuracy, check_latency, check_size, judge_drop


def pair(samples: int, *, worse: int, better: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a reference that is 90 % right and a candidate that loses ``worse`` and wins ``better`` samples."""
    reference = np.ones(samples)
    reference[: samples // 10] = 0.0
    candidate = reference.copy()
    candidate[:better] = 1.0
    candidate[samples - worse :] = 0.0
    return reference, candidate


def test_interval_is_that_of_bonett_and_price() -> None:
    """With many samples the bootstrap meets their closed form."""
    samples, worse, better = 2000, 60, 25
    figures = judge_drop(*pair(samples, worse=worse, better=better), max_drop=0.01)
    one, other = (worse + 1) / (samples + 2), (better + 1) / (samples + 2)
    half = 1.95996 * math.sqrt((one + other - (one - other) ** 2) / (samples + 2))
    assert figures.drop == pytest.approx((worse - better) / samples)
    assert figures.interval.low == pytest.approx(one - other - half, abs=6e-4)
    assert figures.interval.high == pytest.approx(one - other + half, abs=6e-4)
    assert figures.interval.level == 0.95


@pytest.mark.parametrize(
    ("samples", "worse", "better", "outcome"),
    [
        (10_000, 20, 15, "pass"),
        (10_000, 400, 20, "fail"),
        (600, 7, 4, "inconclusive"),  # 0.5 points on 600 pictures cannot be told from 1 point
        (10, 0, 0, "inconclusive"),  # ten samples that agree prove nothing
        (10, 0, 1, "inconclusive"),
        (600, 0, 0, "pass"),
        (20, 12, 0, "fail"),
    ],
)
def test_outcomes_at_one_point(samples: int, worse: int, better: int, outcome: str) -> None:
    figures = judge_drop(*pair(samples, worse=worse, better=better), max_drop=0.01)
    assert figures.outcome == outcome
    assert figures.interval.low <= figures.drop <= figures.interval.high
    assert (figures.samples_to_decide is None) == (outcome != "inconclusive")


def test_a_gain_passes_a_limit_of_zero() -> None:
    assert judge_drop(*pair(2000, worse=5, better=60), max_drop=0.0).outcome == "pass"
    assert judge_drop(*pair(2000, worse=5, better=5), max_drop=0.0).outcome == "inconclusive"


def test_of_an_error_more_is_worse() -> None:
    before = np.linspace(0.05, 0.15, 2000)
    for change, outcome in ((0.0, "pass"), (-0.05, "pass"), (0.05, "fail"), (0.0102, "inconclusive")):
        figures = judge_drop(before, before + change, max_drop=0.01, errors=True)
        assert figures.drop == pytest.approx(change)
        assert figures.outcome == outcome


@pytest.mark.parametrize(("value", "outcome"), [(0.10, "pass"), (0.20, "fail"), (0.149, "inconclusive")])
def test_highest_error(value: float, outcome: str) -> None:
    interval = Interval(value - 0.02, value + 0.02, 0.95)
    figures = AccuracyFigures("abs_rel", value, 100, interval)
    (verdict,) = check_accuracy(AccuracyBudget("abs_rel", max=0.15), figures, None)
    assert (verdict.budget, verdict.limit, verdict.value) == ("accuracy.abs_rel.max", 0.15, value)
    assert verdict.outcome == outcome


def test_without_a_limit_nothing_is_checked() -> None:
    figures = judge_drop(*pair(100, worse=50), max_drop=None)
    assert figures.outcome == "not-checked"
    assert figures.max_drop is None
    assert figures.drop == pytest.approx(0.5)


def test_pairs_matter() -> None:
    """The same two accuracies: pairs that agree give a narrow interval, pairs that do not a wide one."""
    reference = np.tile([1.0, 0.0], 500)
    alike = judge_drop(reference, reference, max_drop=0.01).interval
    crossed = judge_drop(reference, 1.0 - reference, max_drop=0.01).interval
    assert alike.high - alike.low < 0.01
    assert crossed.high - crossed.low > 0.1


def test_same_seed_same_figures() -> None:
    scores = pair(500, worse=9, better=3)
    assert judge_drop(*scores, max_drop=0.01) == judge_drop(*scores, max_drop=0.01)
    ends = {judge_drop(*scores, max_drop=0.01, seed=seed, resamples=20).interval.high for seed in range(5)}
    assert len(ends) > 1


def test_index_draws_and_counts_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of many values are drawn by index, in chunks; both ways draw from the same distribution."""
    scores = pair(400, worse=20, better=8)
    by_counts = judge_drop(*scores, max_drop=0.01).interval
    monkeypatch.setattr(gate, "_FEW_VALUES", 0)
    monkeypatch.setattr(gate, "_CHUNK_ELEMENTS", 70_000)
    by_index = judge_drop(*scores, max_drop=0.01).interval
    assert by_index.low == pytest.approx(by_counts.low, abs=2e-3)
    assert by_index.high == pytest.approx(by_counts.high, abs=2e-3)


def test_scores_between_zero_and_one() -> None:
    random = np.random.default_rng(3)
    reference = random.random(3000)
    candidate = np.clip(reference - 0.05 + 0.02 * random.standard_normal(3000), 0, 1)
    figures = judge_drop(reference, candidate, max_drop=0.02)
    assert figures.outcome == "fail"
    assert figures.drop == pytest.approx(0.049, abs=0.002)
    spread = np.append(reference - candidate, [1.0, -1.0]).std() / math.sqrt(3002)
    assert figures.interval.high - figures.interval.low == pytest.approx(2 * 1.96 * spread, rel=0.05)


def test_coverage_of_the_interval() -> None:
    """Of 400 simulated evaluations, about 95 % of the intervals hold the true drop."""
    random = np.random.default_rng(11)
    held = 0
    for _ in range(400):
        differences = random.choice([1.0, -1.0, 0.0], size=150, p=[0.04, 0.02, 0.94])
        found = judge_drop(differences.clip(0), (-differences).clip(0), max_drop=None, resamples=1000)
        held += found.interval.low <= 0.02 <= found.interval.high
    assert 0.92 <= held / 400 <= 0.99


def test_samples_to_decide_is_about_right() -> None:
    figures = judge_drop(*pair(600, worse=7, better=4), max_drop=0.01)
    assert figures.samples_to_decide is not None
    more = figures.samples_to_decide * 12 // 10
    assert judge_drop(*pair(more, worse=7 * more // 600, better=4 * more // 600), max_drop=0.01).outcome == "pass"
    fewer = figures.samples_to_decide // 2
    half = judge_drop(*pair(fewer, worse=7 * fewer // 600, better=4 * fewer // 600), max_drop=0.01)
    assert half.outcome == "inconclusive"


def test_a_drop_on_the_limit_is_never_decided() -> None:
    figures = judge_drop(*pair(1000, worse=10), max_drop=0.01)
    assert figures.outcome == "inconclusive"
    assert figures.samples_to_decide is None


def test_wrong_scores() -> None:
    with pytest.raises(MeasurementError, match="3 samples and the candidate 2"):
        judge_drop([1, 0, 1], [1, 0], max_drop=0.01)
    with pytest.raises(MeasurementError, match="0 samples"):
        judge_drop([], [], max_drop=0.01)
    with pytest.raises(MeasurementError, match="NaN"):
        judge_drop([1.0, math.nan], [1.0, 1.0], max_drop=0.01)


TIMES = Percentiles(
    p50_ms=4.0, p90_ms=5.0, p95_ms=6.0, p99_ms=None, max_ms=9.0, mean_ms=4.2, jitter_ms=0.5, samples=300
)
LATENCY = LatencyFigures(
    model=replace(TIMES, p50_ms=1.0),
    with_copies=replace(TIMES, p50_ms=2.0),
    end_to_end=TIMES,
    paced=None,
    paced_fps=None,
    deadline_misses=None,
    warmup_runs=10,
    seconds=60.0,
    quick=False,
    threads=1,
)


def test_latency_is_judged_end_to_end() -> None:
    found = check_latency(LatencyBudget(p50_ms=4.0, p95_ms=5.9, p99_ms=20.0), LATENCY)
    assert [(item.budget, item.value, item.outcome) for item in found] == [
        ("latency.p50_ms", 4.0, "pass"),
        ("latency.p95_ms", 6.0, "fail"),
        ("latency.p99_ms", None, "inconclusive"),
    ]
    assert "300 runs are too few for p99" in found[2].why
    assert {item.unit for item in found} == {"ms"}


def test_invalid_latency_decides_nothing() -> None:
    (found,) = check_latency(LatencyBudget(p50_ms=100.0), replace(LATENCY, invalid="throttled"))
    assert found.outcome == "inconclusive"
    assert "throttled" in found.why


def test_absent_latency_is_not_checked() -> None:
    (found,) = check_latency(LatencyBudget(p95_ms=1.0), None, why_absent="build the engine on the board")
    assert (found.value, found.outcome, found.why) == (None, "not-checked", "build the engine on the board")
    assert check_latency(LatencyBudget(), LATENCY) == ()


def test_size() -> None:
    budgets = Budgets(size_mb=0.5, size_ratio=0.3)
    found = check_size(budgets, model_bytes=500_000, float_bytes=1_500_000)
    assert [(item.budget, item.outcome) for item in found] == [("size_mb", "pass"), ("size_ratio", "fail")]
    assert found[0].value == 0.5
    assert found[1].value == pytest.approx(1 / 3)
    assert [item.outcome for item in check_size(budgets, model_bytes=None, float_bytes=None)] == ["not-checked"] * 2
    assert check_size(budgets, model_bytes=1, float_bytes=0)[1].outcome == "not-checked"
    assert check_size(Budgets(), model_bytes=1, float_bytes=1) == ()


@pytest.mark.parametrize(
    ("low", "high", "outcome", "says"),
    [
        (-0.002, 0.008, "pass", "drop +0.0050, 95% interval -0.0020 to +0.0080"),
        (0.011, 0.03, "fail", "+0.0110"),
        (0.0, 0.02, "inconclusive", "within the limit"),
    ],
)
def test_drop_budget(low: float, high: float, outcome: str, says: str) -> None:
    figures = DropFigures(0.005, Interval(low, high), 0.01, "inconclusive", samples_to_decide=4321)
    (found,) = check_accuracy(AccuracyBudget(max_drop=0.01), None, figures)
    assert (found.budget, found.limit, found.value, found.outcome) == ("accuracy.top1.max_drop", 0.01, 0.005, outcome)
    assert says in found.why
    assert ("4321 samples" in found.why) == (outcome == "inconclusive")


def test_drop_that_no_practical_number_of_samples_decides() -> None:
    figures = DropFigures(0.012, Interval(0.0, 0.02), 0.01, "inconclusive")
    (found,) = check_accuracy(AccuracyBudget(max_drop=0.01), None, figures)
    assert found.why.endswith(
        "above the limit, but the interval holds the limit, and no practical number of samples would decide"
    )


@pytest.mark.parametrize(("low", "outcome"), [(0.91, "pass"), (0.88, "inconclusive")])
def test_lowest_accuracy(low: float, outcome: str) -> None:
    figures = AccuracyFigures("top1", 0.93, 500, Interval(low, 0.95))
    (found,) = check_accuracy(AccuracyBudget(min=0.9), figures, None)
    assert (found.budget, found.value, found.outcome) == ("accuracy.top1.min", 0.93, outcome)
    (below,) = check_accuracy(AccuracyBudget(min=0.96), figures, None)
    assert below.outcome == "fail"
    (plain,) = check_accuracy(AccuracyBudget(min=0.93), replace(figures, interval=None), None)
    assert plain.outcome == "pass"


def test_absent_accuracy_is_not_checked() -> None:
    found = check_accuracy(AccuracyBudget(max_drop=0.01, min=0.5), None, None, why_absent="deferred")
    assert [(item.outcome, item.value, item.why) for item in found] == [("not-checked", None, "deferred")] * 2
