"""One word for an artifact and for a run, and the sentence that explains it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgecv.core.figures import Diagnosis, Ladder, Rung, Verdict
from edgecv.core.plain import from_plain
from edgecv.report.outcome import (
    artifact_outcome,
    artifact_reasons,
    broken_rung,
    broken_text,
    grouped,
    headline,
    lost_where,
    overall_outcome,
    reasons,
    speedup,
)
from edgecv.report.render import FORMS, render_html, render_markdown, render_text
from edgecv.report.schema import ArtifactFigures, Report


def outcomes(report: Report) -> dict[str, str]:
    return {item.target: artifact_outcome(item) for item in report.artifacts if item.role == "optimized"}


def test_outcomes_of_artifacts(passing: Report, failing: Report, inconclusive: Report) -> None:
    assert outcomes(passing) == {
        "host-onnxruntime": "pass", "host-openvino": "pass", "raspberry-pi-5": "pass", "jetson-orin-nano": "deferred",
    }  # fmt: skip
    assert outcomes(failing)["host-onnxruntime"] == "fail"
    assert outcomes(failing)["host-openvino"] == "fail"
    assert outcomes(failing)["iphone-15"] == "fail"
    assert outcomes(inconclusive)["host-onnxruntime"] == "inconclusive"
    assert outcomes(inconclusive)["host-openvino"] == "inconclusive"


def test_a_failure_outweighs_what_is_undecided(inconclusive: Report) -> None:
    item = inconclusive.artifacts[1]
    worse = replace(item, verdicts=(*item.verdicts, Verdict("size_mb", 0.1, 0.2, "MB", "fail")))
    assert artifact_outcome(worse) == "fail"
    assert overall_outcome((worse, inconclusive.artifacts[3])) == "fail"


def test_overall(passing: Report, empty: Report) -> None:
    assert overall_outcome(passing.artifacts) == "pass"
    assert overall_outcome(empty.artifacts) == "inconclusive"
    broken_float = replace(passing.artifacts[0], error="no")
    report = replace(passing, artifacts=(broken_float, *passing.artifacts[1:]), outcome="fail")
    assert overall_outcome(report.artifacts) == "fail"
    assert headline(report) == "A float reference fails. host-onnxruntime (float): failed: no."


def test_headlines(passing: Report, failing: Report, inconclusive: Report, empty: Report) -> None:
    assert headline(passing) == "All 8 budgets on 3 targets are met; 1 target still to be built on the device."
    said = headline(failing)
    assert said.startswith("3 of 5 targets fail. host-onnxruntime: p95 6.10 ms, limit 5 ms; host-openvino:")
    assert "blamed on compiler" in said
    assert "iphone-15: step compile failed: ToolchainError: coremltools refused the graph." in said
    said = headline(inconclusive)
    assert said.startswith(
        "2 of 4 targets cannot be decided. host-onnxruntime: top-1 drop 0.75 points, limit 1 point ("
    )
    assert "95 % interval \u22120.28 to 1.78 points holds the limit; about 6,120 samples would decide" in said
    assert "throttled" in said
    assert headline(empty) == "The run made no artifact."


def with_original(item: ArtifactFigures, metric: float | None, *rungs: Rung) -> ArtifactFigures:
    """``item`` with a ladder that begins with the original network, whose metric is ``metric``."""
    base = Rung("original torch", "", 64, None, None, None, metric, None, "not-checked")
    return replace(item, ladder=Ladder((base, *rungs), None))


def rung(name: str, metric: float | None) -> Rung:
    return Rung(name, "float torch", 64, 40.0, 0.1, 1.0, metric, 20.0, "pass")


def test_a_loss_is_told_by_the_part_of_the_build_that_made_it(passing: Report) -> None:
    item = next(item for item in passing.artifacts if item.target == "host-openvino" and item.role == "optimized")
    assert lost_where(item) == "", "nothing was pruned or trained"
    rungs = (rung("float torch", 0.75), rung("float ONNX", 0.75), rung("Q/DQ torch", 0.74))
    cut = with_original(item, 0.9861, *rungs, rung(f"compiled {item.backend}", 0.745))
    said = (
        "lost on the 64 pictures of verification, in points: 23.61 before quantisation, 1.00 by it, \u22120.50 in the "
        "compiled file"
    )
    assert lost_where(cut) == said
    assert lost_where(with_original(item, 0.9861, rung("float torch", 0.75))).endswith("points: 23.61 before export")
    assert lost_where(with_original(item, None, *rungs)) == ""
    deferred = replace(with_original(item, 0.9861, *rungs), accuracy=None)
    assert lost_where(deferred).endswith("23.61 before quantisation, 1.00 by it")
    assert lost_where(replace(deferred, verdicts=())) == ""
    high = replace(item.verdicts[0], value=0.24, outcome="fail")
    failed = replace(cut, verdicts=(high,), ladder=replace(cut.ladder, first_broken="Q/DQ torch"))  # type: ignore[type-var]
    one, other = artifact_reasons(failed)
    assert one.why.endswith(f"; {said}")
    assert said not in other.why, "once is enough"
    (only,) = artifact_reasons(replace(failed, verdicts=()))
    assert only.why == said


@pytest.mark.parametrize("outcome", ["fail", "inconclusive"])
def test_headline_where_no_artifact_says_why(passing: Report, outcome: str) -> None:
    assert "see the notes" in headline(replace(passing, outcome=outcome)).lower()  # type: ignore[arg-type]


def test_headline_of_one_budget_and_of_none(passing: Report) -> None:
    item = passing.artifacts[1]
    one = replace(item, verdicts=item.verdicts[:1])
    assert headline(replace(passing, artifacts=(one,))) == "The one budget on 1 target is met."
    none = replace(item, verdicts=())
    assert headline(replace(passing, artifacts=(none,))) == "1 target built; the recipe sets no budget."
    assert headline(replace(passing, artifacts=(passing.artifacts[5],))) == "Every target is built on its device."


def test_many_failures_name_three(many: Report) -> None:
    bad = tuple(replace(item, failed_step="export", error=item.target) for item in many.artifacts)
    said = headline(replace(many, artifacts=bad, outcome="fail"))
    assert said.startswith("30 of 30 targets fail. board-00: step export failed: board-00; board-01")
    assert said.endswith("and 27 more.")


def test_one_defect_is_told_once(many: Report) -> None:
    bad = tuple(replace(item, failed_step="export", error="x") for item in many.artifacts)
    report = replace(many, artifacts=bad, outcome="fail")
    assert headline(report) == "30 of 30 targets fail. board-00, board-01 and 28 more: step export failed: x."
    assert len(grouped(reasons(report))) == 1
    assert render_text(report).count("step export failed") == 2
    assert render_markdown(report).count("step export failed") == 2
    page = render_html(report)
    assert page.count('class="card problem fail"') == 1
    assert page.count("data-problem=") == 30


def test_reasons_come_failures_first(failing: Report, inconclusive: Report) -> None:
    mixed = replace(failing, artifacts=(inconclusive.artifacts[1], failing.artifacts[-1]))
    assert [item.outcome for item in reasons(mixed)] == ["fail", "inconclusive"]


def test_invalid_times_are_said_once(inconclusive: Report) -> None:
    item = inconclusive.artifacts[3]
    assert item.latency is not None
    why = f"the measurement is invalid: {item.latency.invalid}"
    twice = replace(item, verdicts=(Verdict("latency.p95_ms", 5.0, 0.3, "ms", "inconclusive", why),))
    assert len(reasons(replace(inconclusive, artifacts=(twice,)))) == 1


def test_speedup_needs_two_valid_times_taken_alike(passing: Report, inconclusive: Report) -> None:
    assert speedup(passing, passing.artifacts[1]) == pytest.approx(0.912 / 0.3712)
    assert speedup(passing, passing.artifacts[0]) is None
    assert speedup(passing, passing.artifacts[4]) is None
    assert speedup(inconclusive, inconclusive.artifacts[3]) is None
    assert speedup(passing, replace(passing.artifacts[1], tag="estimated")) is None


def test_causes_are_in_every_form_of_the_report(failing: Report) -> None:
    ladder = failing.artifacts[3].ladder
    assert ladder is not None
    cause = Diagnosis("compiler", "zero point of 'conv\x1b[2J1'", "3", "0", "read from the <model> file")
    item = replace(failing.artifacts[3], ladder=replace(ladder, diagnosis=(cause,)))
    report = replace(failing, artifacts=(*failing.artifacts[:3], item, *failing.artifacts[4:]))
    assert any("zero point of 'conv[2J1': found 3, expected 0" in reason.why for reason in artifact_reasons(item))
    for name, form in {**FORMS, "text": render_text}.items():
        shown = form(report)
        assert "zero point of" in shown, name
        assert "zero point of" not in form(failing), name
        assert "\x1b[2J" not in shown, name
        assert "<model>" not in shown or name == "report.json", name
    raw = json.loads(FORMS["report.json"](report))
    assert from_plain(Ladder, raw["artifacts"][3]["ladder"]) == item.ladder


def test_the_broken_rung_is_found_with_and_without_its_blame(failing: Report) -> None:
    ladder = failing.artifacts[3].ladder
    assert ladder is not None
    for name in ("compiled", "compiled (compiler)"):
        named = replace(ladder, first_broken=name)
        assert broken_rung(named) is ladder.rungs[3]
        assert broken_text(named) == "compiled, blamed on compiler"
    assert broken_text(replace(ladder, first_broken="elsewhere")) == "elsewhere"
