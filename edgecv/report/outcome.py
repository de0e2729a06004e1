"""What a report amounts to: the outcome of each artifact, of the whole run, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgecv.core.figures import FLOAT_TORCH, ORIGINAL_TORCH, QDQ_TORCH, Diagnosis, Ladder, LoopFigures, Rung
from edgecv.core.kinds import metric_loss
from edgecv.report.power import soak_sentence
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.words import (
    clean,
    count_text,
    drop_interval_text,
    drop_text,
    drop_unit,
    ms_text,
    short,
    verdict_text,
)

__all__ = [
    "ArtifactOutcome",
    "Reason",
    "artifact_outcome",
    "artifact_reasons",
    "broken_rung",
    "broken_text",
    "cause_text",
    "float_of",
    "grouped",
    "headline",
    "interval_level",
    "lost_where",
    "optimized",
    "overall_outcome",
    "reasons",
    "speedup",
]

ArtifactOutcome = Literal["pass", "fail", "inconclusive", "deferred", "not-checked"]


@dataclass(frozen=True)
class Reason:
    """One thing that keeps an artifact from passing."""

    target: str
    outcome: Literal["fail", "inconclusive"]
    what: str
    why: str = ""

    @property
    def text(self) -> str:
        """``what``, and ``why`` in brackets."""
        return f"{self.what} ({self.why})" if self.why else self.what


def optimized(report: Report) -> tuple[ArtifactFigures, ...]:
    """The artifacts that the run made, without the float references."""
    return tuple(item for item in report.artifacts if item.role == "optimized")


def artifact_reasons(artifact: ArtifactFigures) -> tuple[Reason, ...]:
    """All that fails or is undecided about one artifact, failures first."""
    target = clean(artifact.target) + (" (float)" if artifact.role == "float" else "")
    found, lost = [], lost_where(artifact)
    if artifact.error or artifact.failed_step:
        first = next((line.strip() for line in clean(artifact.error, lines=True).splitlines() if line.strip()), "")
        step = f"step {clean(artifact.failed_step)} failed" if artifact.failed_step else "failed"
        found.append(Reason(target, "fail", f"{step}: {short(first, 200)}" if first else step))
    for verdict in artifact.verdicts:
        if verdict.outcome == "fail" or verdict.outcome == "inconclusive":
            why = _drop_why(artifact) if verdict.budget.endswith(".max_drop") else ""
            if why and lost:
                why, lost = f"{why}; {lost}", ""
            found.append(Reason(target, verdict.outcome, verdict_text(verdict), why or clean(verdict.why)))
    if artifact.ladder is not None and artifact.ladder.first_broken is not None:
        causes = short("; ".join(cause_text(cause) for cause in artifact.ladder.diagnosis), 400)
        why = "; ".join(text for text in (causes, lost) if text)
        found.append(Reason(target, "fail", _ladder_reason(artifact), why))
    invalid = clean(artifact.latency.invalid) if artifact.latency is not None else ""
    if invalid and not any(invalid in reason.why for reason in found):
        found.append(Reason(target, "inconclusive", f"times are invalid: {invalid}"))
    return tuple(sorted(found, key=lambda reason: reason.outcome != "fail"))


def lost_where(artifact: ArtifactFigures) -> str:
    """How much of the metric each part of the build lost, on the pictures of the ladder.

    "" where the original network is no rung: nothing was pruned or trained, so int8 and the compiler lost all.
    """
    rungs = {rung.name: rung for rung in artifact.ladder.rungs} if artifact.ladder is not None else {}
    original, metric = rungs.get(ORIGINAL_TORCH), _judged_by(artifact)
    if original is None or original.metric is None or not metric:
        return ""
    before = "before quantisation" if QDQ_TORCH in rungs else "before export"
    places = ((FLOAT_TORCH, before), (QDQ_TORCH, "by it"), (f"compiled {artifact.backend}", "in the compiled file"))
    last, parts = original.metric, list[str]()
    for name, where in places:
        score = rungs[name].metric if name in rungs else None
        if score is not None:
            parts.append(f"{drop_text(metric, metric_loss(metric, last, score), column=drop_unit(metric))} {where}")
            last = score
    pictures = count_text(original.samples, "picture")
    return f"lost on the {pictures} of verification, in {drop_unit(metric)}: {', '.join(parts)}" if parts else ""


def _judged_by(artifact: ArtifactFigures) -> str:
    """The task metric; "" where neither a figure nor a budget names it."""
    if artifact.accuracy is not None:
        return artifact.accuracy.metric
    budgets = (verdict.budget.split(".") for verdict in artifact.verdicts)
    return next((parts[1] for parts in budgets if parts[0] == "accuracy" and len(parts) == 3), "")


def reasons(report: Report) -> tuple[Reason, ...]:
    """What keeps the run from passing, artifact by artifact, failures first."""
    found = [reason for artifact in report.artifacts for reason in artifact_reasons(artifact)]
    return tuple(sorted(found, key=lambda reason: reason.outcome != "fail"))


def grouped(found: Iterable[Reason]) -> tuple[tuple[tuple[str, ...], Reason], ...]:
    """Reasons that say the same together, with all their targets: one defect is told once."""
    groups: dict[tuple[str, str, str], list[Reason]] = {}
    for reason in found:
        groups.setdefault((reason.outcome, reason.what, reason.why), []).append(reason)
    return tuple((tuple(each.target for each in group), group[0]) for group in groups.values())


def artifact_outcome(artifact: ArtifactFigures) -> ArtifactOutcome:
    """One word for an artifact: the worst of its failed step, its ladder, its budgets and its times.

    ``deferred`` where nothing fails and the engine is still to be built on the device; ``not-checked``
    where no budget was held against it.
    """
    found = artifact_reasons(artifact)
    if any(reason.outcome == "fail" for reason in found):
        return "fail"
    if found:
        return "inconclusive"
    if artifact.tag == "deferred":
        return "deferred"
    return "pass" if any(verdict.outcome == "pass" for verdict in artifact.verdicts) else "not-checked"


def overall_outcome(artifacts: Iterable[ArtifactFigures]) -> Literal["pass", "fail", "inconclusive"]:
    """The outcome of a run: fail if any file fails, else inconclusive if any is, or if no artifact was made."""
    items = tuple(artifacts)
    found = [artifact_outcome(item) for item in items]
    if "fail" in found:
        return "fail"
    made = any(item.role == "optimized" for item in items)
    return "inconclusive" if "inconclusive" in found or not made else "pass"


def headline(report: Report) -> str:
    """The reason for the report's outcome in one sentence of plain text."""
    if report.loop is not None:
        return _loop_headline(report.loop)
    made = optimized(report)
    if not made:
        return "The run made no artifact."
    outcomes = [artifact_outcome(item) for item in made]
    soaks = [item.soak for item in made if item.soak is not None]
    if report.outcome == "pass" and soaks:
        return soak_sentence(soaks[0])
    if report.outcome == "pass":
        return _passing(report, made, outcomes)
    found = [reason for reason in reasons(report) if reason.outcome == report.outcome]
    if not found:
        return "The run failed outside its targets; see the notes." if report.outcome == "fail" else "See the notes."
    firsts = _one_each(found)
    names = {clean(item.target) for item in made}
    count = sum(reason.target in names for reason in firsts)
    verb = "cannot be decided" if report.outcome == "inconclusive" else "fails" if count == 1 else "fail"
    said = f"{count} of {count_text(len(made), 'target')} {verb}"
    if not count:
        said = "A float reference cannot be decided" if report.outcome == "inconclusive" else "A float reference fails"
    shown = grouped(firsts)
    named = "; ".join(f"{_listed(targets)}: {_brief(reason)}" for targets, reason in shown[:3])
    rest = sum(len(targets) for targets, _ in shown[3:])
    more = f"; and {rest} more" if rest else ""
    return f"{said}. {named}{more}".rstrip(".") + "."


def _loop_headline(loop: LoopFigures) -> str:
    if loop.invalid:
        return f"The times are no measurement: {clean(loop.invalid)}."
    said = f"{count_text(loop.frames, 'frame')} at {loop.fps:.1f} per second"
    if loop.age is not None:
        said += f", half of them no older than {ms_text(loop.age.p50_ms)} ms"
    if loop.deadline_ms is not None and loop.deadline_misses is not None:
        share = loop.deadline_misses / max(loop.frames, 1)
        said += f"; {share:.1%} later than the deadline of {loop.deadline_ms:g} ms"
    return said + "."


def interval_level(report: Report) -> str:
    """The level of the report's confidence intervals, such as ``95 %``; "" where there are none."""
    levels = {item.accuracy.interval.level for item in report.artifacts if item.accuracy and item.accuracy.interval}
    levels |= {item.drop.interval.level for item in report.artifacts if item.drop}
    return " and ".join(f"{level * 100:.4g} %" for level in sorted(levels))


def broken_rung(ladder: Ladder) -> Rung | None:
    """The first rung that broke; ``first_broken`` names it alone or with its blame in brackets."""
    names = ((rung, f"{rung.name} ({rung.blame})") for rung in ladder.rungs)
    return next((rung for rung, full in names if ladder.first_broken in (rung.name, full)), None)


def broken_text(ladder: Ladder) -> str:
    """``compiled, blamed on compiler``; "" where no rung broke."""
    rung = broken_rung(ladder)
    if rung is None:
        return clean(ladder.first_broken or "")
    return clean(rung.name + (f", blamed on {rung.blame}" if rung.blame else ""))


def cause_text(cause: Diagnosis) -> str:
    """``channel order: found rgb, expected bgr``."""
    return clean(cause.text)


def float_of(report: Report, artifact: ArtifactFigures) -> ArtifactFigures | None:
    """The float reference of an artifact: of the same target, else of the same backend."""
    references = [item for item in report.artifacts if item.role == "float" and item.backend == artifact.backend]
    return next((item for item in references if item.target == artifact.target), references[0] if references else None)


def speedup(report: Report, artifact: ArtifactFigures) -> float | None:
    """Median end-to-end time of the float reference / that of the artifact; None where either is missing."""
    reference = float_of(report, artifact)
    if artifact.role == "float" or reference is None:
        return None
    if artifact.latency is None or reference.latency is None or artifact.latency.invalid or reference.latency.invalid:
        return None
    if artifact.tag != reference.tag or artifact.latency.end_to_end.p50_ms <= 0:
        return None
    return reference.latency.end_to_end.p50_ms / artifact.latency.end_to_end.p50_ms


def _ladder_reason(artifact: ArtifactFigures) -> str:
    assert artifact.ladder is not None
    return f"verification breaks at {broken_text(artifact.ladder)}"


def _listed(targets: tuple[str, ...]) -> str:
    if len(targets) <= 3:
        return ", ".join(targets)
    return f"{targets[0]}, {targets[1]} and {len(targets) - 2} more"


def _brief(reason: Reason) -> str:
    # A failed budget speaks for itself; what is undecided needs the reason.
    return short(reason.text if reason.outcome == "inconclusive" else reason.what, 240)


def _drop_why(artifact: ArtifactFigures) -> str:
    """The interval in the unit of the loss, as everywhere in the report, and what would decide."""
    drop, metric = artifact.drop, artifact.accuracy.metric if artifact.accuracy is not None else ""
    if drop is None:
        return ""
    text = f"{drop.interval.level * 100:.4g} % interval {drop_interval_text(metric, drop.interval)} {drop_unit(metric)}"
    if drop.outcome != "inconclusive":
        return text
    if drop.samples_to_decide is None:
        return f"{text} holds the limit; no practical number of samples would decide"
    return f"{text} holds the limit; about {drop.samples_to_decide:,} samples would decide"


def _one_each(found: list[Reason]) -> list[Reason]:
    first: dict[str, Reason] = {}
    for reason in found:
        first.setdefault(reason.target, reason)
    return list(first.values())


def _passing(report: Report, made: tuple[ArtifactFigures, ...], outcomes: list[ArtifactOutcome]) -> str:
    held = sum(verdict.outcome == "pass" for item in made for verdict in item.verdicts)
    with_budgets = sum(outcome == "pass" for outcome in outcomes)
    deferred = outcomes.count("deferred")
    if held:
        text = f"All {count_text(held, 'budget')} on {count_text(with_budgets, 'target')} are met"
        text = text.replace("All 1 budget", "The one budget").replace("are met", "is met" if held == 1 else "are met")
    elif deferred == len(made):
        text = "Every target is built on its device"
    else:
        text = f"{count_text(len(made) - deferred, 'target')} built; the recipe sets no budget"
    if deferred and deferred < len(made):
        text += f"; {count_text(deferred, 'target')} still to be built on the device"
    return text + "."
