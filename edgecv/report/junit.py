"""The report as JUnit XML, which every CI system shows."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

from edgecv.core.figures import Verdict
from edgecv.report.outcome import broken_text, cause_text
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.words import budget_limit, budget_name, clean, db_text, is_minimum, verdict_text

__all__ = ["render_junit"]

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(report: Report) -> str:
    """JUnit XML: a suite per target with a case for the artifact itself, its ladder and every budget.

    A failed budget or a broken ladder is a ``failure``, a failed step an ``error``; what is deferred,
    inconclusive or not checked is ``skipped`` with the reason.
    """
    root = ET.Element("testsuites", name=_text(report.name), time=_seconds(report.seconds))
    shown = [item for item in report.artifacts if item.role == "optimized" or item.error or item.failed_step]
    suites = [_suite(report, artifact) for artifact in shown]
    root.extend(suites)
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(report: Report, artifact: ArtifactFigures) -> ET.Element:
    seconds = sum(step.seconds for step in report.steps if step.target == artifact.target and not step.cached)
    suite = ET.Element("testsuite", name=_text(_name(artifact)))
    cases = [_built(artifact)]
    if artifact.ladder is not None:
        cases.append(_ladder(artifact))
    cases += [_budget(verdict) for verdict in artifact.verdicts]
    if artifact.latency is not None and artifact.latency.invalid:
        cases.append(_case("times", skipped=f"times are invalid: {artifact.latency.invalid}"))
    for case in cases:
        case.set("classname", _text(f"{report.name}.{_name(artifact)}"))
        case.set("time", "0")
    cases[0].set("time", _seconds(seconds))
    suite.extend(cases)
    suite.set("tests", str(len(cases)))
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("time", _seconds(seconds))
    # JUnit's schema has no zone in a timestamp.
    suite.set("timestamp", _text(report.created)[:19])
    return suite


def _name(artifact: ArtifactFigures) -> str:
    return artifact.target + (" float" if artifact.role == "float" else "")


def _built(artifact: ArtifactFigures) -> ET.Element:
    if artifact.error or artifact.failed_step:
        case = _case(f"step {artifact.failed_step or 'build'}")
        first = (clean(artifact.error, lines=True).strip() or "failed").splitlines()[0]
        error = ET.SubElement(case, "error", message=_text(first), type=_text(artifact.failed_step or "build"))
        error.text = _text(artifact.error, lines=True)
        return case
    if artifact.tag == "deferred":
        return _case("artifact", skipped="deferred: the engine is built on the device; run `edgecv build` there")
    case = _case("artifact")
    ET.SubElement(case, "system-out").text = _text(_facts(artifact))
    return case


def _ladder(artifact: ArtifactFigures) -> ET.Element:
    ladder = artifact.ladder
    assert ladder is not None
    case = _case("verify")
    if ladder.first_broken is not None:
        message = f"first broken rung: {broken_text(ladder)}"
        failure = ET.SubElement(case, "failure", message=_text(message), type="verify")
        rows = [f"{rung.name} against {rung.against}: {db_text(rung.sqnr_db)}, {rung.outcome}" for rung in ladder.rungs]
        rows += [f"{cause_text(cause)} ({clean(cause.evidence)})" for cause in ladder.diagnosis]
        failure.text = _text("\n".join(rows), lines=True)
    return case


def _budget(verdict: Verdict) -> ET.Element:
    sign = "≥" if is_minimum(verdict) else "≤"
    name = f"budget {budget_name(verdict)} {sign} {budget_limit(verdict)}"
    why = verdict_text(verdict) + (f" ({verdict.why})" if verdict.why else "")
    if verdict.outcome in ("inconclusive", "not-checked"):
        return _case(name, skipped=f"{verdict.outcome}: {why}")
    case = _case(name)
    if verdict.outcome == "fail":
        ET.SubElement(case, "failure", message=_text(why), type="budget")
    return case


def _case(name: str, *, skipped: str = "") -> ET.Element:
    case = ET.Element("testcase", name=_text(name))
    if skipped:
        ET.SubElement(case, "skipped", message=_text(skipped))
    return case


def _facts(artifact: ArtifactFigures) -> str:
    size = "" if artifact.file_bytes is None else f", {artifact.file_bytes} bytes"
    return f"{artifact.folder}/{artifact.file}{size}, sha256 {artifact.chain.file or 'unknown'}, {artifact.tag}"


def _text(text: str, *, lines: bool = False) -> str:
    return _NOT_XML.sub("", clean(text, lines=lines))


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}" if math.isfinite(seconds) else "0"
