"""Budgets held against figures, and the honest verdict on a loss of accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgecv.core.figures import AccuracyFigures, DropFigures, Interval, LatencyFigures, Outcome, Verdict
from edgecv.core.kinds import lower_is_better, metric_unit
from edgecv.core.protocols import Parts
from edgecv.core.recipe import AccuracyBudget, Budgets, LatencyBudget
from edgecv.errors import MeasurementError

_FEW_VALUES = 256
_CHUNK_ELEMENTS = 1 << 22
_MAX_SAMPLES_TO_DECIDE = 10**6
"""No evaluation set of pictures is larger."""
MAX_WORK = 5_000_000_000
"""Numbers that one bootstrap of `judge_parts` goes through at most, about a minute on one core."""
MIN_RESAMPLES = 1000


def judge_drop(
    reference: Sequence[float],
    candidate: Sequence[float],
    *,
    max_drop: float | None,
    errors: bool = False,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> DropFigures:
    """Loss of a metric, ``mean(reference) - mean(candidate)``, with a paired bootstrap interval over samples.

    Both sequences hold one score per sample of the same evaluation set in the same order, a share 0..1 or in dB; or
    ``errors``, of which less is better, so that the loss is what is added to them.
    The outcome is ``pass`` where the whole interval is at or below ``max_drop``, ``fail`` where it is wholly above,
    ``inconclusive`` where it holds ``max_drop`` (then ``samples_to_decide`` estimates how many samples would
    settle it if the drop stayed as it is; None where no practical number would), and ``not-checked`` without
    a ``max_drop``.

    The percentile bootstrap is of B. Efron, Ann. Stat. 7, 1979. It knows no chance that it has not seen: ten
    samples that happen to agree would prove anything. So two made-up samples join, one better and one
    worse by 1, as in the adjusted interval of D. G. Bonett and R. M. Price, J. Educ. Behav. Stat. 37, 2012. For a share
    that is the most a sample can change; for decibels, a change that is plainly seen.

    Raises:
        MeasurementError: the sequences are empty, differ in length or hold values that are not finite.
    """
    one, other = np.asarray(reference, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1 or one.size == 0:
        raise MeasurementError(
            f"the reference has {one.size} samples and the candidate {other.size}; both must be evaluated on the "
            "same set of at least one sample. Run the evaluation again."
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise MeasurementError("a per-sample score is NaN or infinite; find the sample and evaluate again")
    differences = other - one if errors else one - other
    drop = float(differences.mean())
    means = _bootstrap_means(np.append(differences, (1.0, -1.0)), resamples=resamples, seed=seed)
    return _judged(drop, means, max_drop=max_drop, level=level, samples=one.size)


def judge_parts(
    reference: Parts,
    candidate: Parts,
    *,
    max_drop: float | None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> DropFigures:
    """As `judge_drop`, for a metric that is no mean over pictures: it is computed anew on every resample.

    Both parts are of the same pictures in the same order. The two made-up samples of `judge_drop` move the
    difference of a resample by as much as they would move that of a mean. Where ``resamples`` would need more than
    `MAX_WORK` numbers, fewer are drawn (at least `MIN_RESAMPLES`); the figures tell how many.

    Raises:
        MeasurementError: there is no picture, or the parts are of different numbers of pictures.
    """
    samples = reference.samples
    if samples != candidate.samples or samples == 0:
        raise MeasurementError(
            f"the reference has {samples} samples and the candidate {candidate.samples}; both must be evaluated on "
            "the same set of at least one sample. Run the evaluation again."
        )
    work = max(1, reference.work + candidate.work + 2 * samples)
    rounds = min(resamples, max(MIN_RESAMPLES, MAX_WORK // work))
    once = np.ones((1, samples), dtype=np.int64)
    drop = float(reference.values(once)[0] - candidate.values(once)[0])
    found = np.empty(rounds, dtype=np.float64)
    for start, counts in _resampled_counts(samples + 2, rounds, seed=seed):
        real, made_up = counts[:, :samples], counts[:, samples] - counts[:, samples + 1]
        lost = reference.values(real) - candidate.values(real)
        found[start : start + len(counts)] = (real.sum(axis=1) * lost + made_up) / (samples + 2)
    return _judged(drop, found, max_drop=max_drop, level=level, samples=samples)


def parts_interval(parts: Parts, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the metric itself, which holds the measured value.

    Fewer resamples than for a difference: this interval is shown, and only decides on a budget's ``min``.
    """
    value = float(parts.values(np.ones((1, parts.samples), dtype=np.int64))[0])
    rounds = min(resamples, max(MIN_RESAMPLES, MAX_WORK // max(1, parts.work + parts.samples)))
    found = [parts.values(counts) for _, counts in _resampled_counts(parts.samples, rounds, seed=seed)]
    low, high = (float(edge) for edge in np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2]))
    return Interval(low=min(low, value), high=max(high, value), level=level)


def _resampled_counts(total: int, resamples: int, *, seed: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """How often each of ``total`` samples is drawn in each resample, in blocks of rows with their first row."""
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK_ELEMENTS // total)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = random.integers(0, total, size=(rows, total)) + total * np.arange(rows)[:, None]
        yield start, np.bincount(drawn.ravel(), minlength=rows * total).reshape(rows, total)


def _judged(
    drop: float, means: npt.NDArray[np.float64], *, max_drop: float | None, level: float, samples: int
) -> DropFigures:
    """The figures of a measured drop and its resampled values."""
    low, high = (float(value) for value in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
    # The made-up samples pull the means towards 0; the measured drop stays inside.
    interval = Interval(low=min(low, drop), high=max(high, drop), level=level)
    outcome = _outcome(interval, max_drop)
    needed = None
    if outcome == "inconclusive" and max_drop is not None:
        needed = _samples_to_decide(drop, interval, max_drop, samples)
    return DropFigures(drop, interval, max_drop, outcome, needed, len(means))


def check_accuracy(
    budget: AccuracyBudget, figures: AccuracyFigures | None, drop: DropFigures | None, *, why_absent: str = ""
) -> tuple[Verdict, ...]:
    """Verdicts on ``max_drop``, ``min`` and ``max``, where set; without figures ``not-checked`` for ``why_absent``.

    ``min`` passes where the whole interval of the value is at or above it and fails where it is wholly below; ``max``
    the other way round.
    """
    verdicts = []
    unit = metric_unit(budget.metric)
    if budget.max_drop is not None:
        name = f"accuracy.{budget.metric}.max_drop"
        absent = Verdict(name, budget.max_drop, None, unit, "not-checked", why_absent)
        verdicts.append(absent if drop is None else _check_drop(name, budget.max_drop, drop, unit))
    for bound, limit in (("min", budget.min), ("max", budget.max)):
        if limit is None:
            continue
        name = f"accuracy.{budget.metric}.{bound}"
        if figures is None:
            verdicts.append(Verdict(name, limit, None, unit, "not-checked", why_absent))
        else:
            verdicts.append(_check_bound(name, limit, figures, unit))
    return tuple(verdicts)


def check_latency(
    budget: LatencyBudget, figures: LatencyFigures | None, *, why_absent: str = ""
) -> tuple[Verdict, ...]:
    """One verdict for each percentile that has a limit, on end-to-end times back to back.

    ``inconclusive`` where the measurement is invalid or too short for the percentile; ``not-checked`` for
    ``why_absent`` without figures.
    """
    limits = {"p50": budget.p50_ms, "p95": budget.p95_ms, "p99": budget.p99_ms}
    verdicts = []
    for name, limit in limits.items():
        if limit is None:
            continue
        value: float | None = None
        outcome: Outcome = "not-checked"
        why = why_absent
        if figures is not None:
            value = getattr(figures.end_to_end, f"{name}_ms")
            outcome, why = _judge_time(value, limit, figures, name)
        verdicts.append(Verdict(f"latency.{name}_ms", limit, value, "ms", outcome, why))
    return tuple(verdicts)


def check_size(budgets: Budgets, *, model_bytes: int | None, float_bytes: int | None) -> tuple[Verdict, ...]:
    """Verdicts on ``size_mb`` (10^6 bytes) and ``size_ratio`` (against the same backend's float file), where set."""
    verdicts = []
    if budgets.size_mb is not None:
        megabytes = None if model_bytes is None else model_bytes / 1e6
        why = "the model file is not built yet" if megabytes is None else f"{model_bytes} bytes"
        verdicts.append(_at_most("size_mb", budgets.size_mb, megabytes, "MB", why))
    if budgets.size_ratio is not None:
        if model_bytes is None or not float_bytes:
            ratio, why = None, "the model file or its float reference is not built"
        else:
            ratio, why = model_bytes / float_bytes, f"{model_bytes} of {float_bytes} bytes"
        verdicts.append(_at_most("size_ratio", budgets.size_ratio, ratio, "share", why))
    return tuple(verdicts)


def _bootstrap_means(values: npt.NDArray[np.float64], *, resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """Means of ``resamples`` draws with replacement, as many values each as there are."""
    random = np.random.default_rng(seed)
    kinds, counts = np.unique(values, return_counts=True)
    if kinds.size <= _FEW_VALUES:
        # Right-or-wrong scores differ by -1, 0 or 1: how often each is drawn is multinomial, no index is needed.
        drawn = random.multinomial(values.size, counts / values.size, size=resamples)
        few: npt.NDArray[np.float64] = drawn @ kinds / values.size
        return few
    means = np.empty(resamples, dtype=np.float64)
    step = max(1, _CHUNK_ELEMENTS // values.size)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        means[start : start + rows] = values[random.integers(0, values.size, size=(rows, values.size))].mean(axis=1)
    return means


def _outcome(interval: Interval, max_drop: float | None) -> Outcome:
    if max_drop is None:
        return "not-checked"
    if interval.high <= max_drop:
        return "pass"
    return "fail" if interval.low > max_drop else "inconclusive"


def _samples_to_decide(drop: float, interval: Interval, max_drop: float, samples: int) -> int | None:
    """The interval narrows with the square root of the samples until it no longer holds the limit.

    An estimate, and rounded up as one: to two digits.
    """
    gap = abs(max_drop - drop)
    reach = interval.high - drop if drop <= max_drop else drop - interval.low
    if gap == 0 or samples * (reach / gap) ** 2 > _MAX_SAMPLES_TO_DECIDE:
        return None
    needed = max(samples + 1, math.ceil(samples * (reach / gap) ** 2))
    step: int = 10 ** max(0, len(str(needed)) - 2)
    return math.ceil(needed / step) * step


def _check_drop(name: str, limit: float, figures: DropFigures, unit: str) -> Verdict:
    low, high = figures.interval.low, figures.interval.high
    shown = "" if unit == "share" else f" {unit}"
    why = f"drop {figures.drop:+.4f}{shown}, {figures.interval.level:.0%} interval {low:+.4f} to {high:+.4f}{shown}"
    outcome = _outcome(figures.interval, limit)
    if outcome == "inconclusive":
        side = "within" if figures.drop <= limit else "above"
        why += f"; the measured drop is {side} the limit, but the interval holds the limit"
        if figures.samples_to_decide is None:
            why += ", and no practical number of samples would decide"
        else:
            why += f"; about {figures.samples_to_decide} samples would decide"
    return Verdict(name, limit, figures.drop, unit, outcome, why)


def _check_bound(name: str, limit: float, figures: AccuracyFigures, unit: str) -> Verdict:
    """On the lowest or, for errors, highest value that is allowed."""
    low = high = figures.value
    shown = "" if unit == "share" else f" {unit}"
    why = f"{figures.value:.4f}{shown} on {figures.samples} samples"
    if figures.interval is not None:
        low, high = figures.interval.low, figures.interval.high
        why += f", {figures.interval.level:.0%} interval {low:.4f} to {high:.4f}{shown}"
    if lower_is_better(figures.metric):
        low, high, limit = -high, -low, -limit
    outcome: Outcome = "pass" if low >= limit else "fail" if high < limit else "inconclusive"
    if outcome == "inconclusive":
        why += "; the interval holds the limit, more samples are needed"
    return Verdict(name, abs(limit), figures.value, unit, outcome, why)


def _judge_time(value: float | None, limit: float, figures: LatencyFigures, name: str) -> tuple[Outcome, str]:
    runs = figures.end_to_end.samples
    if figures.invalid:
        return "inconclusive", f"the measurement is invalid: {figures.invalid}"
    if value is None:
        return "inconclusive", f"{runs} runs are too few for {name}; measure longer (not quick)"
    return ("pass" if value <= limit else "fail"), f"{runs} runs" + (", quick protocol" if figures.quick else "")


def _at_most(name: str, limit: float, value: float | None, unit: str, why: str) -> Verdict:
    outcome: Outcome = "not-checked" if value is None else "pass" if value <= limit else "fail"
    return Verdict(name, limit, value, unit, outcome, why)
