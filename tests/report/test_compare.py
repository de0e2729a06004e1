"""Comparing two reports: what is a regression, and what must not be compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgecv.errors import UsageError
from edgecv.report.compare import ArtifactChange, Change, compare
from edgecv.report.compare_text import comparison_json, comparison_markdown, comparison_text
from edgecv.report.schema import ArtifactFigures, Report


def changed(report: Report, index: int, artifact: ArtifactFigures) -> Report:
    made = list(report.artifacts)
    made[index] = artifact
    return replace(report, artifacts=tuple(made))


def slower(report: Report, factor: float, index: int = 1) -> Report:
    item = report.artifacts[index]
    assert item.latency is not None
    times = item.latency.end_to_end
    assert times.p95_ms is not None
    more = replace(times, p50_ms=times.p50_ms * factor, p95_ms=times.p95_ms * factor)
    return changed(report, index, replace(item, latency=replace(item.latency, end_to_end=more)))


def less_accurate(report: Report, loss: float, index: int = 1) -> Report:
    item = report.artifacts[index]
    assert item.accuracy is not None
    return changed(report, index, replace(item, accuracy=replace(item.accuracy, value=item.accuracy.value - loss)))


def of(changes: tuple[ArtifactChange, ...], target: str, field: str) -> Change:
    item = next(item for item in changes if item.target == target and item.role == "optimized")
    return next(change for change in item.changes if change.field == field)


def test_a_report_against_itself_passes(any_report: Report) -> None:
    if not any_report.artifacts:
        found = compare(any_report, any_report)
        assert (found.outcome, found.exit_code) == ("inconclusive", 4)
        return
    found = compare(any_report, any_report)
    assert (found.outcome, found.exit_code, found.regressions) == ("pass", 0, ())
    assert all(item.links == () for item in found.artifacts)


@pytest.mark.parametrize(("factor", "regressions"), [(1.049, 0), (1.06, 2), (0.5, 0)])
def test_latency_is_gated_relatively(passing: Report, factor: float, regressions: int) -> None:
    found = compare(passing, slower(passing, factor))
    assert len(found.regressions) == regressions
    assert found.exit_code == (3 if regressions else 0)


def test_a_latency_regression_says_by_how_much(passing: Report) -> None:
    found = compare(passing, slower(passing, 1.5), max_latency_increase=0.1)
    assert found.regressions[0] == ("host-onnxruntime: p50 +50.0 % (0.371 ms to 0.557 ms), allowed +10.0 %")
    assert of(found.artifacts, "host-onnxruntime", "end_to_end.p50_ms").worse_by == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("loss", "allowed", "fails"), [(0.002, 0.0, True), (0.002, 0.002, False), (0.002, 0.001, True), (-0.01, 0.0, False)]
)
def test_accuracy_is_gated_absolutely(passing: Report, loss: float, allowed: float, fails: bool) -> None:
    found = compare(passing, less_accurate(passing, loss), max_accuracy_drop=allowed)
    assert (found.exit_code == 3) == fails


def test_an_error_that_grows_is_a_regression(passing: Report) -> None:
    item = passing.artifacts[1]
    assert item.accuracy is not None
    before = changed(passing, 1, replace(item, accuracy=replace(item.accuracy, metric="abs_rel", value=0.08)))
    for value, fails in ((0.09, True), (0.07, False)):
        after = changed(passing, 1, replace(item, accuracy=replace(item.accuracy, metric="abs_rel", value=value)))
        found = compare(before, after, max_accuracy_drop=0.005)
        assert (found.outcome == "fail") is fails


def test_an_accuracy_regression_says_by_how_much(passing: Report) -> None:
    found = compare(passing, less_accurate(passing, 0.02), max_accuracy_drop=0.005)
    assert found.regressions == ("host-onnxruntime: top-1 98.33 % to 96.33 %: lost 2.00 points, allowed 0.50",)


@pytest.mark.parametrize(("limit", "fails"), [(0.0, True), (0.2, False), (None, False)])
def test_size_is_gated_relatively(passing: Report, limit: float | None, fails: bool) -> None:
    item = passing.artifacts[1]
    assert item.file_bytes is not None
    bigger = changed(passing, 1, replace(item, file_bytes=int(item.file_bytes * 1.1)))
    found = compare(passing, bigger, max_size_increase=limit)
    assert (found.exit_code == 3) == fails
    if fails:
        assert found.regressions == ("host-onnxruntime: size +10.0 % (0.21 MB to 0.24 MB), allowed +0.0 %",)


@pytest.mark.parametrize(("name", "value"), [("cpu", "Cortex-A76"), ("cores", 8), ("board", "x"), ("machine", "arm")])
def test_times_of_another_machine_are_not_compared(passing: Report, name: str, value: object) -> None:
    other = replace(slower(passing, 10.0), machine=replace(passing.machine, **{name: value}))
    found = compare(passing, other)
    assert found.exit_code == 0
    assert any(note.startswith("Latencies are not comparable: another") for note in found.notes)
    change = of(found.artifacts, "host-onnxruntime", "end_to_end.p50_ms")
    assert change.not_comparable
    assert not change.regression
    assert "not comparable" in comparison_text(found)


def test_times_taken_in_another_way_are_not_compared(passing: Report) -> None:
    after = slower(passing, 10.0)
    item = after.artifacts[1]
    assert item.latency is not None
    for other in (
        replace(item, latency=replace(item.latency, invalid="throttled")),
        replace(item, latency=replace(item.latency, threads=8)),
        replace(item, tag="emulated"),
    ):
        found = compare(passing, changed(after, 1, other))
        assert of(found.artifacts, "host-onnxruntime", "end_to_end.p50_ms").not_comparable
        assert not any("p50" in text for text in found.regressions)


def test_a_percentile_that_is_missing_is_not_compared(passing: Report) -> None:
    item = passing.artifacts[1]
    assert item.latency is not None
    short = replace(item.latency, end_to_end=replace(item.latency.end_to_end, p95_ms=None))
    found = compare(passing, changed(passing, 1, replace(item, latency=short)))
    assert "too small" in of(found.artifacts, "host-onnxruntime", "end_to_end.p95_ms").not_comparable
    assert found.exit_code == 0


def test_accuracy_of_another_set_is_not_compared(passing: Report) -> None:
    worse = less_accurate(passing, 0.5)
    found = compare(passing, replace(worse, data={"eval": {"kind": "other"}}))
    assert found.exit_code == 0
    assert any("evaluation sets differ" in note for note in found.notes)
    item = worse.artifacts[1]
    assert item.accuracy is not None
    fewer = changed(worse, 1, replace(item, accuracy=replace(item.accuracy, samples=10)))
    assert compare(passing, fewer).exit_code == 0


def test_a_missing_artifact_is_a_regression_and_a_new_one_is_not(passing: Report) -> None:
    fewer = replace(passing, artifacts=passing.artifacts[:2])
    found = compare(passing, fewer)
    assert "host-openvino: missing in the second report" in found.regressions
    assert "host-openvino (float): missing in the second report" in found.regressions
    back = compare(fewer, passing)
    assert back.exit_code == 0
    assert "New: host-openvino, raspberry-pi-5, jetson-orin-nano" in back.notes


def test_a_worse_outcome_is_a_regression(passing: Report, failing: Report, inconclusive: Report) -> None:
    found = compare(passing, failing)
    assert "host-openvino: outcome was pass, is fail" in found.regressions
    assert "host-onnxruntime: outcome was pass, is inconclusive" in compare(passing, inconclusive).regressions
    back = compare(failing, passing, max_accuracy_drop=1.0)
    assert back.regressions == ("iphone-15: missing in the second report",)


def test_a_pass_that_is_deferred_now_is_a_regression(passing: Report) -> None:
    later = replace(passing.artifacts[1], tag="deferred")
    assert (
        "host-onnxruntime: passed before, is deferred now" in compare(passing, changed(passing, 1, later)).regressions
    )


def test_figures_that_went_missing_are_shown(passing: Report) -> None:
    bare = replace(passing.artifacts[1], accuracy=None, latency=None, file_bytes=None)
    found = compare(passing, changed(passing, 1, bare))
    for field in ("top1", "end_to_end.p50_ms", "file_bytes"):
        change = of(found.artifacts, "host-onnxruntime", field)
        assert (change.after, change.not_comparable) == (None, "not measured in the second report")


def test_changed_links_of_the_chain_are_named(passing: Report) -> None:
    item = passing.artifacts[1]
    other = replace(item, chain=replace(item.chain, weights="0" * 64, file="1" * 64))
    found = compare(passing, changed(passing, 1, other))
    assert [item.links for item in found.artifacts if item.links] == [("weights", "file")]
    assert "weights, file" in comparison_text(found)


def test_engines_and_versions_are_noted(passing: Report) -> None:
    machine = replace(passing.machine, engines={**passing.machine.engines, "onnxruntime": "1.40"})
    found = compare(passing, replace(passing, machine=machine, edgecv_version="9.9"))
    assert "Engine onnxruntime: 1.31.1 before, 1.40 now" in found.notes
    assert "edgecv: 0.1.0 before, 9.9 now" in found.notes
    assert not any("not comparable" in note for note in found.notes)


def test_quick_times_are_noted(passing: Report) -> None:
    item = passing.artifacts[1]
    assert item.latency is not None
    quick = changed(passing, 1, replace(item, latency=replace(item.latency, quick=True)))
    assert any("quick" in note for note in compare(passing, quick).notes)


def test_wrong_use_is_refused(passing: Report) -> None:
    with pytest.raises(UsageError, match=r"latency is -0\.1"):
        compare(passing, passing, max_latency_increase=-0.1)
    with pytest.raises(UsageError, match="accuracy is nan"):
        compare(passing, passing, max_accuracy_drop=float("nan"))
    twice = replace(passing, artifacts=passing.artifacts * 2)
    with pytest.raises(UsageError, match="first report has the target 'host-onnxruntime' twice"):
        compare(twice, passing)


def test_text_fits_and_ends_with_the_verdict(passing: Report, failing: Report) -> None:
    text = comparison_text(compare(passing, failing))
    assert all(len(line) <= 120 for line in text.splitlines())
    assert text.rstrip().splitlines()[-1].startswith("\u2717 FAIL  ")
    assert comparison_text(compare(passing, passing)).rstrip().endswith("\u2713 PASS  No regression in 6 artifacts.")


def test_markdown_starts_with_the_verdict(passing: Report, hostile: Report) -> None:
    text = comparison_markdown(compare(passing, slower(passing, 2.0)))
    assert text.startswith("## \u2717 Comparison: fail\n\n2 regressions.")
    assert "\n\n| Artifact | Figure | Before | After | Change | Outcome |" in text
    inert = comparison_markdown(compare(hostile, hostile))
    assert "<script" not in inert
    assert "@team" not in inert


def test_json_is_standard_and_names_regressions(passing: Report) -> None:
    raw = json.loads(comparison_json(compare(passing, slower(passing, 2.0))))
    assert raw["outcome"] == "fail"
    assert raw["exit_code"] == 3
    item = next(one for one in raw["artifacts"] if one["target"] == "host-onnxruntime" and one["role"] == "optimized")
    assert [one["field"] for one in item["changes"] if one["regression"]] == ["end_to_end.p50_ms", "end_to_end.p95_ms"]
