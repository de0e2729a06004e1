"""The paired bootstrap of a metric that is no mean over pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgecv.core.tensor import Array
from edgecv.errors import ArtifactError, MeasurementError
from edgecv.families.ranked import RankedParts
from edgecv.measure import gate
from edgecv.measure.accuracy import load_parts, save_parts
from edgecv.measure.gate import judge_drop, judge_parts, parts_interval


@dataclass(frozen=True)
class MeanParts:
    """A mean over pictures, as parts: `judge_parts` must agree with `judge_drop` on it."""

    scores: npt.NDArray[np.float64]
    work: int = 1

    @property
    def samples(self) -> int:
        return len(self.scores)

    def values(self, counts: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = counts @ self.scores / np.maximum(1, counts.sum(axis=1))
        return found

    def arrays(self) -> Mapping[str, Array]:
        return {"scores": self.scores}


def ranked(samples: int, *, right: float, seed: int, classes: int = 20, found: int = 40) -> RankedParts:
    """Findings of which a share is right, the surer the more, and as many objects again that nobody finds."""
    random = np.random.default_rng(seed)
    rows = samples * found
    pictures = np.repeat(np.arange(samples), found)
    kinds = np.random.default_rng(0).integers(0, classes, rows)
    scores = random.random(rows)
    sure = random.random(rows) < 0.2 * scores
    states = (sure & (random.random((10, rows)) < right)).astype(np.uint8)
    keys, counts = np.unique(np.stack([pictures, kinds], axis=1)[sure], axis=0, return_counts=True)
    truths = np.concatenate([keys, 2 * counts[:, None]], axis=1)
    return RankedParts(samples, pictures, kinds, scores, states, truths)


@pytest.mark.parametrize(("samples", "lost"), [(40, 4), (300, 9), (3000, 30)])
def test_a_mean_is_judged_as_by_judge_drop(samples: int, lost: int) -> None:
    one = np.ones(samples)
    other = one.copy()
    other[:lost] = 0
    drop = judge_drop(one, other, max_drop=0.02)
    parts = judge_parts(MeanParts(one), MeanParts(other), max_drop=0.02)
    assert parts.drop == pytest.approx(drop.drop)
    assert parts.interval.low == pytest.approx(drop.interval.low, abs=0.1 / samples**0.5)
    assert parts.interval.high == pytest.approx(drop.interval.high, abs=0.1 / samples**0.5)
    assert (parts.outcome, parts.resamples) == (drop.outcome, 10_000)


def test_a_precision_that_falls_is_seen() -> None:
    better, worse = (ranked(200, right=share, seed=1, found=15) for share in (0.9, 0.4))
    assert judge_parts(better, worse, max_drop=0.0001, resamples=1000).outcome == "fail"
    same = judge_parts(better, better, max_drop=0.04, resamples=1000)
    assert (same.drop, same.outcome) == (0.0, "pass")
    assert same.interval.low < 0 < same.interval.high  # few pictures prove nothing exactly
    again = judge_parts(better, worse, max_drop=None, resamples=1000)
    assert again == judge_parts(better, worse, max_drop=None, resamples=1000)
    assert again.outcome == "not-checked"


def test_few_pictures_are_inconclusive_and_told_how_many_would_decide() -> None:
    parts = ranked(44, right=0.9, seed=1)
    figures = judge_parts(parts, parts, max_drop=0.01, resamples=2000)
    assert figures.outcome == "inconclusive"
    assert figures.samples_to_decide is not None
    assert 200 < figures.samples_to_decide < 2000


def test_ten_thousand_resamples_of_a_small_set_take_seconds() -> None:
    parts, other = ranked(44, right=0.9, seed=1, classes=80), ranked(44, right=0.8, seed=2, classes=80)
    start = time.process_time()
    assert judge_parts(parts, other, max_drop=0.01).resamples == 10_000
    assert time.process_time() - start < 15


def test_a_large_set_takes_fewer_resamples_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = MeanParts(np.ones(50), work=1_000_000)
    monkeypatch.setattr(gate, "MAX_WORK", 2_400_000_000)
    figures = judge_parts(parts, parts, max_drop=0.01)
    assert figures.resamples == 2_400_000_000 // (2 * 1_000_000 + 100)
    monkeypatch.setattr(gate, "MAX_WORK", 1)
    assert judge_parts(parts, parts, max_drop=0.01).resamples == gate.MIN_RESAMPLES


def test_the_metrics_own_interval() -> None:
    parts = MeanParts((np.arange(400) < 300).astype(np.float64))
    interval = parts_interval(parts)
    half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert interval.low == pytest.approx(0.75 - half, abs=0.006)
    assert interval.high == pytest.approx(0.75 + half, abs=0.006)


def test_different_sets_cannot_be_compared() -> None:
    with pytest.raises(MeasurementError, match="the reference has 3 samples and the candidate 4"):
        judge_parts(MeanParts(np.ones(3)), MeanParts(np.ones(4)), max_drop=None)
    with pytest.raises(MeasurementError, match="at least one sample"):
        judge_parts(MeanParts(np.ones(0)), MeanParts(np.ones(0)), max_drop=None)


def test_parts_are_stored_without_pickles(tmp_path: Path) -> None:
    parts = ranked(20, right=0.9, seed=3)
    save_parts(tmp_path / "parts.npz", parts)
    counts = np.random.default_rng(0).integers(0, 3, (4, 20))
    assert load_parts(tmp_path / "parts.npz").values(counts).tolist() == parts.values(counts).tolist()
    (tmp_path / "parts.npz").write_bytes(b"PK nothing")
    with pytest.raises(ArtifactError, match="is corrupt"):
        load_parts(tmp_path / "parts.npz")
