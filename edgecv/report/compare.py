"""Two reports held against each other: what changed, what got worse, and may it be merged.

Times are compared only where both were measured on the same machine in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgecv.core.figures import LatencyFigures
from edgecv.core.kinds import metric_loss, metric_unit
from edgecv.errors import UsageError
from edgecv.report.outcome import artifact_outcome
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.words import change_text, clean, drop_unit, metric_name, metric_text, points_text, quantity_text

__all__ = ["ArtifactChange", "Change", "Comparison", "compare"]

LINKS = ("recipe", "weights", "calibration", "graph", "file")
_ROUNDING = 1e-9
_RANK = {"pass": 0, "not-checked": 1, "deferred": 1, "inconclusive": 2, "fail": 3}


@dataclass(frozen=True)
class Change:
    """One figure before and after. ``worse_by`` is what the gate judges: an absolute loss for accuracy
    and drop, a relative increase (0.05 = 5 %) for latency and size; negative is better.

    ``limit`` is the allowed value of it, None where the figure is not gated. ``not_comparable`` says
    why nothing was judged, or is empty.
    """

    field: str
    before: float | None
    after: float | None
    unit: str
    worse_by: float | None
    limit: float | None
    not_comparable: str = ""

    @property
    def regression(self) -> bool:
        """Whether the figure got worse by more than the limit."""
        judged = self.worse_by is not None and self.limit is not None and not self.not_comparable
        return judged and (self.worse_by or 0.0) > (self.limit or 0.0) + _ROUNDING


@dataclass(frozen=True)
class ArtifactChange:
    """One model file in both reports, or only in one (``status`` new or missing)."""

    target: str
    role: Literal["float", "optimized"]
    status: Literal["both", "new", "missing"]
    outcome_before: str
    outcome_after: str
    changes: tuple[Change, ...] = ()
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What `edgecv compare` found. ``outcome`` is ``inconclusive`` where nothing could be compared.

    ``regressions`` are sentences, one for each thing that got worse beyond its limit.
    """

    before: str
    after: str
    outcome: Literal["pass", "fail", "inconclusive"]
    artifacts: tuple[ArtifactChange, ...]
    regressions: tuple[str, ...]
    notes: tuple[str, ...]
    exit_code: Literal[0, 3, 4]


@dataclass(frozen=True)
class _Limits:
    accuracy: float
    latency: float
    size: float | None


def compare(
    before: Report,
    after: Report,
    *,
    max_accuracy_drop: float = 0.0,
    max_latency_increase: float = 0.05,
    max_size_increase: float | None = 0.0,
) -> Comparison:
    """Hold ``after`` against ``before``, artifact by artifact (matched by target and role).

    ``max_accuracy_drop`` is absolute (0.01 = one point of a share, or 0.01 dB), judged on the values themselves;
    ``max_latency_increase`` (end-to-end p50 and p95) and ``max_size_increase`` are relative
    (0.05 = 5 %); None does not gate size. A missing artifact and a worse outcome are regressions.

    Raises:
        UsageError: a limit is negative or not a number.
    """
    limits = _Limits(max_accuracy_drop, max_latency_increase, max_size_increase)
    for name, value in vars(limits).items():
        if value is not None and not value >= 0:
            raise UsageError(f"the allowed loss for {name} is {value}; it must be 0 or more (0.05 = 5 %)")
    old = _by_key(before, "the first report")
    new = _by_key(after, "the second report")
    why_not = _other_machine(before, after)
    same_data = _same_data(before, after)
    keys = dict.fromkeys([*old, *new])
    changes = [_artifact(old.get(key), new.get(key), limits, why_not, same_data=same_data) for key in keys]
    regressions = tuple(sentence for change in changes for sentence in _regressions(change))
    outcome: Literal["pass", "fail", "inconclusive"] = "fail" if regressions else "pass"
    if not regressions and not any(change.status == "both" for change in changes):
        outcome = "inconclusive"
    return Comparison(
        before=f"{clean(before.name)} of {clean(before.created)}",
        after=f"{clean(after.name)} of {clean(after.created)}",
        outcome=outcome,
        artifacts=tuple(changes),
        regressions=regressions,
        notes=_notes(before, after, changes, why_not),
        exit_code={"pass": 0, "fail": 3, "inconclusive": 4}[outcome],  # type: ignore[arg-type]
    )


def _by_key(report: Report, which: str) -> dict[tuple[str, str], ArtifactFigures]:
    found: dict[tuple[str, str], ArtifactFigures] = {}
    for item in report.artifacts:
        if (item.target, item.role) in found:
            raise UsageError(
                f"{which} has the target {item.target!r} twice as {item.role}; artifacts are matched by target "
                "and role, so each may stand there once"
            )
        found[(item.target, item.role)] = item
    return found


def _other_machine(before: Report, after: Report) -> str:
    one, other = before.machine, after.machine
    pairs = [
        ("processor", one.cpu, other.cpu),
        ("number of cores", one.cores, other.cores),
        ("architecture", one.machine, other.machine),
        ("board", one.board, other.board),
    ]
    return next((f"another {name}: {clean(str(a))} and {clean(str(b))}" for name, a, b in pairs if a != b), "")


def _same_data(before: Report, after: Report) -> bool:
    one, other = before.data.get("eval"), after.data.get("eval")
    return one is None or other is None or one == other


def _artifact(
    old: ArtifactFigures | None, new: ArtifactFigures | None, limits: _Limits, why_not: str, *, same_data: bool
) -> ArtifactChange:
    item = new if new is not None else old
    assert item is not None
    before = "" if old is None else artifact_outcome(old)
    after = "" if new is None else artifact_outcome(new)
    if old is None or new is None:
        status: Literal["new", "missing"] = "new" if old is None else "missing"
        return ArtifactChange(clean(item.target), item.role, status, before, after)
    changes = [_accuracy(old, new, limits, same_data=same_data), _drop(old, new, same_data=same_data)]
    changes += [_time(old, new, name, limits, why_not) for name in ("p50_ms", "p95_ms")]
    changes.append(_size(old, new, limits))
    links = tuple(link for link in LINKS if getattr(old.chain, link) != getattr(new.chain, link))
    kept = tuple(change for change in changes if change is not None)
    return ArtifactChange(clean(item.target), item.role, "both", before, after, kept, links)


def _accuracy(old: ArtifactFigures, new: ArtifactFigures, limits: _Limits, *, same_data: bool) -> Change | None:
    one, other = old.accuracy, new.accuracy
    if one is None and other is None:
        return None
    if one is None or other is None:
        known = one or other
        assert known is not None
        values = (one.value if one else None, other.value if other else None)
        return Change(known.metric, *values, _unit(known.metric), None, None, _only_in(one is None))
    why = ""
    if one.metric != other.metric:
        why = f"another metric: {clean(one.metric)} and {clean(other.metric)}"
    elif one.samples != other.samples:
        why = f"another evaluation set: {one.samples:,} and {other.samples:,} samples"
    elif not same_data:
        why = "another evaluation set"
    worse = metric_loss(other.metric, one.value, other.value)
    return Change(other.metric, one.value, other.value, _unit(other.metric), worse, limits.accuracy, why)


def _drop(old: ArtifactFigures, new: ArtifactFigures, *, same_data: bool) -> Change | None:
    one, other = old.drop, new.drop
    if one is None or other is None:
        return None
    why = "" if same_data else "another evaluation set"
    # The drop follows from the accuracies, so it is shown and not gated a second time.
    metric = new.accuracy.metric if new.accuracy is not None else ""
    return Change("drop", one.drop, other.drop, drop_unit(metric), other.drop - one.drop, None, why)


def _time(old: ArtifactFigures, new: ArtifactFigures, name: str, limits: _Limits, why_not: str) -> Change | None:
    if old.latency is None and new.latency is None:
        return None
    one, other = _percentile(old.latency, name), _percentile(new.latency, name)
    field = f"end_to_end.{name}"
    if old.latency is None or new.latency is None:
        return Change(field, one, other, "ms", None, None, _only_in(old.latency is None))
    why = why_not or _other_way(old, new, old.latency, new.latency)
    if one is None or other is None:
        why = why or "the sample is too small for this percentile"
        return Change(field, one, other, "ms", None, limits.latency, why)
    if one <= 0:
        return Change(field, one, other, "ms", None, limits.latency, "the first time is not above 0")
    return Change(field, one, other, "ms", other / one - 1, limits.latency, why)


def _percentile(latency: LatencyFigures | None, name: str) -> float | None:
    if latency is None:
        return None
    value: float | None = getattr(latency.end_to_end, name)
    return value


def _other_way(old: ArtifactFigures, new: ArtifactFigures, one: LatencyFigures, other: LatencyFigures) -> str:
    if one.invalid or other.invalid:
        return f"times are invalid: {clean(one.invalid or other.invalid)}"
    if old.tag != new.tag:
        return f"{old.tag} and {new.tag}"
    if one.threads != other.threads:
        return f"another number of threads: {one.threads} and {other.threads}"
    return ""


def _size(old: ArtifactFigures, new: ArtifactFigures, limits: _Limits) -> Change | None:
    one, other = old.file_bytes, new.file_bytes
    if one is None and other is None:
        return None
    if one is None or other is None:
        return Change("file_bytes", one, other, "bytes", None, None, _only_in(one is None))
    return Change("file_bytes", one, other, "bytes", other / one - 1 if one else 0.0, limits.size)


def _unit(metric: str) -> str:
    if metric_unit(metric) != "share":
        return metric_unit(metric)
    return "share" if metric_text(metric, 0.0).endswith("%") else ""


def _only_in(missing_before: bool) -> str:
    return f"not measured in the {'first' if missing_before else 'second'} report"


def _regressions(item: ArtifactChange) -> list[str]:
    name = f"{item.target} (float)" if item.role == "float" else item.target
    if item.status == "missing":
        return [f"{name}: missing in the second report"]
    found = []
    if item.status == "both" and _RANK[item.outcome_after] > max(_RANK[item.outcome_before], 1):
        found.append(f"{name}: outcome was {item.outcome_before}, is {item.outcome_after}")
    if item.status == "both" and item.outcome_before == "pass" and item.outcome_after in ("not-checked", "deferred"):
        found.append(f"{name}: passed before, is {item.outcome_after.replace('-', ' ')} now")
    found += [f"{name}: {_sentence(change)}" for change in item.changes if change.regression]
    return found


def _sentence(change: Change) -> str:
    before, after, limit = change.before or 0.0, change.after or 0.0, change.limit or 0.0
    if change.unit in ("ms", "bytes"):
        name = "size" if change.unit == "bytes" else change.field.replace("end_to_end.", "").replace("_ms", "")
        values = f"{quantity_text(before, change.unit)} to {quantity_text(after, change.unit)}"
        return f"{name} {change_text(before, after)} ({values}), allowed +{limit * 100:.1f} %"
    values = f"{metric_text(change.field, before)} to {metric_text(change.field, after)}"
    if change.unit == "share":
        lost = f"{points_text(change.worse_by)} points, allowed {points_text(limit)}"
    elif change.unit:
        lost = f"{change.worse_by:.2f} {change.unit}, allowed {limit:.2f}"
    else:
        lost = f"{change.worse_by:.4f}, allowed {limit:.4f}"
    return f"{metric_name(change.field)} {values}: lost {lost}"


def _notes(before: Report, after: Report, changes: list[ArtifactChange], why_not: str) -> tuple[str, ...]:
    found = []
    if why_not:
        found.append(f"Latencies are not comparable: {why_not}")
    if not _same_data(before, after):
        found.append("Accuracies are not comparable: the evaluation sets differ")
    engines = sorted(set(before.machine.engines) | set(after.machine.engines))
    for name in engines:
        one, other = before.machine.engines.get(name, "none"), after.machine.engines.get(name, "none")
        if one != other:
            found.append(f"Engine {clean(name)}: {clean(one)} before, {clean(other)} now")
    if before.edgecv_version != after.edgecv_version:
        found.append(f"edgecv: {clean(before.edgecv_version)} before, {clean(after.edgecv_version)} now")
    quick = [any(a.latency is not None and a.latency.quick for a in report.artifacts) for report in (before, after)]
    if quick[0] or quick[1]:
        found.append("Times come from the quick protocol: small changes may be noise")
    new = [change.target for change in changes if change.status == "new" and change.role == "optimized"]
    if new:
        found.append(f"New: {', '.join(new)}")
    if not any(change.status == "both" for change in changes):
        found.append("The reports have no artifact in common: nothing could be compared")
    return tuple(found)
