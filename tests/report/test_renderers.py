"""Terminal text, Markdown and JUnit XML, and the folder that holds all forms."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.errors import UsageError
from edgecv.report import render
from edgecv.report.effects import effects
from edgecv.report.markdown import MAX_CHARS, escape
from edgecv.report.render import render_all, render_junit, render_markdown, render_text
from edgecv.report.schema import Report, StepFigures
from edgecv.report.schema_io import read_report


def test_text_fits_a_terminal_and_holds_no_control_code(any_report: Report) -> None:
    text = render_text(any_report)
    assert "\x1b" not in text
    for line in text.splitlines():
        # A word longer than the line is not broken.
        assert len(line) <= 120 or any(len(word) > 60 for word in line.split()), line


def test_text_columns_stand_below_each_other(failing: Report) -> None:
    lines = render_text(failing).splitlines()
    head = next(line for line in lines if line.startswith("target"))
    rows = [line for line in lines if line.startswith(("host-", "raspberry", "jetson", "iphone"))]
    assert len(rows) == 7
    end = head.index("p50 ms") + len("p50 ms")
    assert [row[:end].split()[-1] for row in rows] == ["0.912", "5.45", "0.744", "0.251", "\u2013", "\u2013", "\u2013"]
    assert all(row[end - 1] != " " for row in rows)


def test_text_ends_with_the_verdict(failing: Report, passing: Report) -> None:
    assert "\u2717 FAIL  3 of 5 targets fail" in render_text(failing).split("\n\n")[-1]
    assert render_text(passing).rstrip().splitlines()[-1].startswith("\u2713 PASS  All 8 budgets")
    assert "* emulated, not measured on the target" in render_text(passing)


def test_colour_only_where_asked(failing: Report) -> None:
    coloured = render_text(failing, color=True)
    assert "\x1b[31m" in coloured
    assert re.sub("\x1b\\[[0-9]+m", "", coloured) == render_text(failing)


def test_markdown_starts_with_the_verdict(failing: Report) -> None:
    text = render_markdown(failing)
    assert text.startswith("## \u2717 digits: fail\n\n3 of 5 targets fail.")
    assert "\n\n| Target | Engine |" in text
    assert "| host-onnxruntime | onnxruntime int8 | 0.21 MB (0.26\u00d7) | 98.33 % [97.01 to 99.65] |" in text
    assert "- \u2717 **host-openvino**: verification breaks at compiled, blamed on compiler" in text
    assert "ToolchainError: coremltools refused the graph\n  frame 0\n" in text
    assert "MACs 5.81 M \u2192 2.89 M (\u221250.2 %)" in text


def test_markdown_tables_keep_their_columns(any_report: Report) -> None:
    width = 0
    for line in render_markdown(any_report).splitlines():
        if line.startswith("| "):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert width in (0, cells), line
            width = cells
        else:
            width = 0


def test_markdown_is_inert(hostile: Report) -> None:
    text = render_markdown(hostile)
    # Inside a fence everything is text; the fence is longer than any run of backticks in it.
    inside = re.search(r"^(`{3,})text\n.*?\n\1\n", text, re.S | re.M)
    assert inside is not None
    assert len(inside[1]) == 4
    outside = text.replace(inside[0], "")
    assert "<script" not in outside
    assert "<img" not in outside
    assert "@team" not in outside
    assert "http://" not in outside


def test_escape_makes_one_line() -> None:
    assert escape("a\n# b | *c* `d`") == "a \\# b \\| \\*c\\* \\`d\\`"


def test_markdown_fits_into_a_comment(failing: Report) -> None:
    long = tuple(replace(failing.artifacts[-1], target=f"t{i}", error=f"{i} " + "x" * 5000) for i in range(60))
    text = render_markdown(replace(failing, artifacts=long))
    assert len(text) < MAX_CHARS + 200
    assert "left out" in text


def check_junit(text: str) -> ET.Element:
    """The common structure: element names, their attributes, and counts that agree."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    totals = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in root:
        assert suite.tag == "testsuite"
        assert set(suite.attrib) == {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"}
        kinds = {"failure": 0, "error": 0, "skipped": 0}
        for case in suite:
            assert case.tag == "testcase"
            assert set(case.attrib) == {"name", "classname", "time"}
            assert float(case.attrib["time"]) >= 0
            results = [child.tag for child in case if child.tag != "system-out"]
            assert len(results) <= 1
            assert {child.tag for child in case} <= {"failure", "error", "skipped", "system-out"}
            for tag in results:
                kinds[tag] += 1
        counts = {
            "tests": len(suite),
            "failures": kinds["failure"],
            "errors": kinds["error"],
            "skipped": kinds["skipped"],
        }
        for name, count in counts.items():
            assert suite.get(name) == str(count)
            totals[name] += count
    assert {name: root.get(name) for name in totals} == {name: str(count) for name, count in totals.items()}
    return root


def test_junit_has_the_common_structure(any_report: Report) -> None:
    check_junit(render_junit(any_report))


def test_junit_says_what_failed(failing: Report) -> None:
    root = check_junit(render_junit(failing))
    assert (root.get("failures"), root.get("errors"), root.get("skipped")) == ("2", "1", "3")
    case = root.find("testsuite[@name='host-onnxruntime']/testcase[@name='budget p95 \u2264 5 ms']/failure")
    assert case is not None
    assert case.get("message") == "p95 6.10 ms, limit 5 ms (1024 runs)"
    error = root.find("testsuite[@name='iphone-15']/testcase[@name='step compile']/error")
    assert error is not None
    assert error.text is not None
    assert error.text.endswith("frame 11")
    skipped = root.find("testsuite[@name='jetson-orin-nano']/testcase[@name='artifact']/skipped")
    assert skipped is not None
    assert "edgecv build" in str(skipped.get("message"))
    ladder = root.find("testsuite[@name='host-openvino']/testcase[@name='verify']/failure")
    assert ladder is not None
    assert ladder.get("message") == "first broken rung: compiled, blamed on compiler"


def test_a_failed_float_reference_is_told(passing: Report) -> None:
    broken = replace(passing.artifacts[0], failed_step="compile", error="no float file")
    report = replace(passing, artifacts=(broken, *passing.artifacts[1:]), outcome="fail")
    root = check_junit(render_junit(report))
    assert root.find("testsuite[@name='host-onnxruntime float']/testcase[@name='step compile']/error") is not None
    assert "**host-onnxruntime (float)**: step compile failed: no float file" in render_markdown(report)
    assert "host-onnxruntime (float): step compile failed" in render_text(report)


def test_junit_skips_what_is_undecided(inconclusive: Report) -> None:
    root = check_junit(render_junit(inconclusive))
    assert root.get("failures") == "0"
    said = [str(item.get("message")) for item in root.iter("skipped")]
    assert any(text.startswith("inconclusive: top-1 drop 0.75 points") for text in said)
    assert any(text.startswith("times are invalid: throttled") for text in said)


def test_effects_pair_before_and_after() -> None:
    step = StepFigures(
        "prune", "", "", 1.0, False, "",
        {"params_after": 50, "params_before": 100, "top1_before": 0.9, "top1_after": 0.8, "method": "taylor",
         "file_bytes": 1_500_000, "loss_after": 0.25, "gain": math.inf, "held_out_top1": 0.5,
            "graph_sha256": "0a" * 32, "invalid": "", "warnings": '["one", "two"]'},
    )  # fmt: skip
    assert [str(effect) for effect in effects(step)] == [
        "parameters 100 \u2192 50 (\u221250.0 %)", "top-1 90.00 % \u2192 80.00 %", "method taylor", "size 1.50 MB",
        "loss after 0.25", "gain inf", "held out top-1 50.00 %", "graph sha256 0a0a0a0a0a0a", "warnings one; two",
    ]  # fmt: skip


def test_all_forms_are_written(any_report: Report, tmp_path: Path) -> None:
    paths = render_all(any_report, tmp_path / "out")
    assert [path.name for path in paths] == ["report.json", "report.md", "report.xml", "report.html"]
    assert sorted(tmp_path.joinpath("out").iterdir()) == sorted(paths)
    assert read_report(tmp_path / "out") == any_report
    ET.parse(tmp_path / "out" / "report.xml")


def test_nothing_is_written_where_one_form_fails(
    passing: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(report: Report) -> str:
        raise UsageError("no")

    monkeypatch.setitem(render.FORMS, "report.html", fail)
    with pytest.raises(UsageError):
        render_all(passing, tmp_path)
    assert list(tmp_path.iterdir()) == []
