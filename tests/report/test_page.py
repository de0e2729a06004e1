"""The page's text: structure, figures, and that nothing can run or be fetched."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from edgecv.report.html import el, figure, join
from edgecv.report.page import render_html
from edgecv.report.schema import Report

VOID = {"br", "input", "link", "meta"}


class Page(HTMLParser):
    """Collects elements and checks that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_page_is_well_formed_and_small(any_report: Report) -> None:
    text = render_html(any_report)
    page = Page(text)
    assert len(text) < 500_000
    assert len(page.of("h1")) == 1
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_nothing_is_fetched_and_nothing_foreign_runs(any_report: Report) -> None:
    page = Page(render_html(any_report))
    assert len(page.of("script")) == 1
    assert len(page.of("style")) == 1
    assert not page.of("img")
    assert not page.of("iframe")
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            assert name not in ("src", "style", "action", "srcset"), name
            if name == "href":
                assert value == "data:,"


def test_policy_names_the_hashes_of_what_stands_in_the_page(passing: Report) -> None:
    text = render_html(passing)
    policy = next(item["content"] for item in Page(text).of("meta") if "http-equiv" in item)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        body = re.search(f"<{tag}>(.*?)</{tag}>", text, re.S)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy


def test_figures_can_be_read_back(passing: Report) -> None:
    page = Page(render_html(passing))
    item = passing.artifacts[1]
    assert item.latency is not None
    assert item.accuracy is not None
    assert item.drop is not None
    found = {
        attributes["data-field"]: attributes["data-value"]
        for _, attributes in page.elements
        if attributes.get("data-artifact") == item.target
        and attributes.get("data-role") == "optimized"
        and "data-value" in attributes
    }
    assert float(str(found["top1"])) == item.accuracy.value
    assert float(str(found["drop"])) == item.drop.drop
    assert float(str(found["end_to_end.p95_ms"])) == item.latency.end_to_end.p95_ms
    assert float(str(found["model.p99_ms"])) == item.latency.model.p99_ms
    assert int(str(found["file_bytes"])) == item.file_bytes
    assert found["chain.file"] == item.chain.file
    assert found["outcome"] == "pass"
    assert float(str(found["budget:latency.p95_ms"])) == item.verdicts[1].value


def test_what_was_not_measured_is_empty_never_zero(passing: Report) -> None:
    page = Page(render_html(passing))
    gaps = [
        attributes["data-value"]
        for _, attributes in page.elements
        if attributes.get("data-artifact") == "jetson-orin-nano"
        and str(attributes.get("data-field")).startswith(("end_to_end", "model", "drop", "accuracy"))
    ]
    assert gaps == [""] * 8


def test_tables_are_accessible(failing: Report) -> None:
    page = Page(render_html(failing))
    assert all(item.get("scope") in ("col", "row", "colgroup") for item in page.of("th"))
    charts = [item for item in page.of("svg") if "chart" in str(item.get("class"))]
    assert all(item.get("aria-label") for item in charts)
    others = [item for item in page.of("svg") if "chart" not in str(item.get("class"))]
    assert all(item.get("aria-hidden") == "true" for item in others)
    assert all(item.get("aria-label") for _, item in page.elements if item.get("role") in ("region", "group", "img"))


def test_failures_are_told_with_step_error_and_blame(failing: Report) -> None:
    text = render_html(failing)
    assert "step compile failed: ToolchainError: coremltools refused the graph" in text
    assert "frame 11" in text
    assert "breaks at compiled, blamed on compiler" in text
    page = Page(text)
    assert {str(item.get("data-problem")) for _, item in page.elements if "data-problem" in item} == {
        "host-onnxruntime", "host-openvino", "iphone-15",
    }  # fmt: skip
    opened = [item for item in page.of("details") if "data-ladder" in item and "open" in item]
    assert [item["data-ladder"] for item in opened] == ["host-openvino"]


def test_a_failed_float_reference_is_told(passing: Report) -> None:
    broken = replace(passing.artifacts[0], failed_step="compile", error="no float file")
    text = render_html(replace(passing, artifacts=(broken, *passing.artifacts[1:])))
    assert "no float file" in text


def test_infinite_and_missing_rungs(passing: Report) -> None:
    text = render_html(passing)
    assert 'data-field="sqnr_db" data-value="inf"' in text
    assert "\u221e (equal)" in text
    assert 'data-rung="device"' in text


def test_hostile_text_is_text(hostile: Report) -> None:
    text = render_html(hostile)
    assert text.count("<script>") == 1
    assert "&lt;script&gt;window.hacked=1&lt;/script&gt;" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_empty_report_says_so(empty: Report) -> None:
    text = render_html(empty)
    assert "The run made no artifact." in text
    assert "<table" not in text


def test_an_empty_recipe_and_no_steps_leave_no_empty_section(passing: Report) -> None:
    text = render_html(replace(passing, steps=(), recipe={}, data={}, notes=(), artifacts=passing.artifacts[:1]))
    assert 'id="steps"' not in text
    assert 'id="recipe"' not in text
    assert 'id="notes"' not in text


@pytest.mark.parametrize("outcome", ["pass", "fail", "inconclusive"])
def test_the_verdict_is_the_reports_own(passing: Report, outcome: str) -> None:
    page = Page(render_html(replace(passing, outcome=outcome)))  # type: ignore[arg-type]
    assert [item["data-value"] for item in page.of("p") if item.get("data-field") == "outcome"] == [outcome]


def test_the_builder_escapes() -> None:
    made = el("a", "<b>", None, el("br"), title='"><x', hidden=True, lang=None, open=False, data_x=3)
    assert made.text == '<a title="&quot;&gt;&lt;x" hidden data-x="3">&lt;b&gt;<br></a>'
    assert join(["&", el("i")]).text == "&amp;<i></i>"
    assert 'data-value="0.1"' in figure("0.1", 0.1, "x").text
    assert 'data-value="7"' in figure("7", 7, "x").text


def test_a_file_that_verification_broke_is_not_praised(failing: Report) -> None:
    page = Page(render_html(failing))
    fastest = [item["data-value"] for _, item in page.elements if item.get("data-field") == "best_p50_ms"]
    assert fastest == ["5.45"]


def test_a_run_without_any_file_has_no_chart_and_no_tag(failing: Report) -> None:
    text = render_html(replace(failing, artifacts=failing.artifacts[-1:]))
    assert 'id="chart"' not in text
    assert 'data-field="tag"' not in text
    assert "failed at compile" in text
