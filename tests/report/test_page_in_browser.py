"""The page in a real browser, opened from a file: figures, console, requests, phone and keyboard."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgecv.report.page import render_html
from edgecv.report.schema import ArtifactFigures, Report

pytestmark = pytest.mark.browser

Open = Callable[[Report], Any]


@pytest.fixture(scope="module")
def tool(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("screenshot", root / "tools" / "screenshot.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser(tool: ModuleType) -> Iterator[Any]:
    found = tool.find_browser()
    if found is None:
        reason = "chromium or chromedriver is missing; install both to test the page in a browser"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with tool.open_browser(*found) as opened:
        yield opened


@pytest.fixture
def show(browser: Any, tool: ModuleType, tmp_path: Path) -> Open:
    def opened(report: Report, *, width: int = 1280, dark: bool = False) -> Any:
        path = tmp_path / "report.html"
        path.write_text(render_html(report), encoding="utf-8")
        tool.set_screen(browser, width=width, height=844, dark=dark)
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(path.as_uri())
        return browser

    return opened


def figures(page: Any, **where: str) -> dict[str, str]:
    """``data-value`` of all elements with these data attributes, by ``data-field``."""
    selector = "".join(f'[data-{name}="{value}"]' for name, value in where.items())
    script = "return [...document.querySelectorAll(arguments[0])].map(e => [e.dataset.field, e.dataset.value])"
    return dict(page.execute_script(script, f"{selector}[data-value]"))


def number(value: float | None) -> str:
    return "" if value is None else repr(value)


def expected(item: ArtifactFigures) -> dict[str, str]:
    found = {"file_bytes": number(item.file_bytes)}
    if item.accuracy is not None:
        found[item.accuracy.metric] = number(item.accuracy.value)
    found["drop"] = number(item.drop.drop if item.drop is not None else None)
    for kind in ("end_to_end", "model"):
        times = getattr(item.latency, kind) if item.latency is not None else None
        for name in ("p50_ms", "p95_ms", "p99_ms"):
            found[f"{kind}.{name}"] = number(getattr(times, name) if times is not None else None)
    for verdict in item.verdicts:
        found[f"budget:{verdict.budget}"] = number(verdict.value)
    return found


@pytest.mark.parametrize("name", ["passing", "failing", "inconclusive", "many"])
def test_every_figure_reads_back(show: Open, request: pytest.FixtureRequest, name: str) -> None:
    report: Report = request.getfixturevalue(name)
    page = show(report)
    for item in report.artifacts:
        found = figures(page, artifact=item.target, role=item.role)
        wanted = expected(item)
        assert {field: found.get(field) for field in wanted} == wanted, item.target
        for rung in item.ladder.rungs if item.ladder is not None else ():
            seen = figures(page, artifact=item.target, role=item.role, rung=rung.name)
            assert seen["sqnr_db"] == number(rung.sqnr_db)
            assert seen["agreement"] == number(rung.agreement)
    steps = page.execute_script(
        "return [...document.querySelectorAll('[data-step][data-field=seconds]')].map(e => +e.dataset.value)"
    )
    assert steps == [step.seconds for step in report.steps]


def test_every_report_opens_without_error_or_request(show: Open, any_report: Report) -> None:
    page = show(any_report)
    assert page.get_log("browser") == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    asked = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = {
        message["params"]["request"]["url"] for message in asked if message["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in urls if not url.startswith(("file:", "data:"))} == set()


def test_hostile_text_is_inert(show: Open, hostile: Report) -> None:
    page = show(hostile)
    assert page.execute_script("return window.hacked") is None
    assert page.execute_script("return document.querySelectorAll('img, iframe, a, script').length") == 1
    assert "<script>window.hacked=1</script>" in page.find_element("css selector", "h1").text
    assert page.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_the_page_does_not_scroll_sideways(show: Any, any_report: Report, width: int) -> None:
    page = show(any_report, width=width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.execute_script("return window.innerWidth") == width


@pytest.mark.parametrize(("width", "kind"), [(390, "narrow"), (1280, "wide")])
def test_one_chart_is_shown_and_no_label_is_cut_off(show: Any, passing: Report, width: int, kind: str) -> None:
    page = show(passing, width=width)
    charts = page.execute_script(
        "return [...document.querySelectorAll('svg.chart')].filter(e => e.getBoundingClientRect().width > 0)"
        ".map(e => e.getAttribute('class'))"
    )
    assert charts == [f"chart chart-{kind}"]
    outside = page.execute_script(
        """const box = document.querySelector(`svg.chart-${arguments[0]}`).getBoundingClientRect();
        return [...document.querySelectorAll(`svg.chart-${arguments[0]} text`)].filter(e => {
          const b = e.getBoundingClientRect();
          return b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1;
        }).map(e => e.textContent)""",
        kind,
    )
    assert outside == []


def test_labels_of_the_chart_do_not_cover_each_other(show: Any, passing: Report) -> None:
    page = show(passing)
    covered = page.execute_script(
        """const boxes = [...document.querySelectorAll('svg.chart-wide .label')].map(e => e.getBoundingClientRect());
        let n = 0;
        boxes.forEach((a, i) => boxes.slice(i + 1).forEach(b => {
          if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) n += 1;
        }));
        return n"""
    )
    assert covered == 0


@pytest.mark.parametrize(("width", "kind"), [(390, "narrow"), (1280, "wide")])
def test_charts_over_time_show_one_size_and_cut_no_text_off(show: Any, soaked: Report, width: int, kind: str) -> None:
    page = show(soaked, width=width)
    shown = page.execute_script(
        """const chart = [...document.querySelectorAll('svg.chart')].filter(e => e.getBoundingClientRect().width > 0);
        const box = chart[0].getBoundingClientRect();
        const outside = [...chart[0].querySelectorAll('text')].filter(e => {
          const b = e.getBoundingClientRect();
          return b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1;
        }).map(e => e.textContent);
        return [chart.length, chart[0].getAttribute('class'), outside];"""
    )
    assert shown == [1, f"chart chart-{kind}", []]
    found = figures(page)
    assert (found["sustained_fps"], found["throttled_s"], found["mj_per_frame"]) == ("21.5", "193.0", "214.0")


@pytest.mark.parametrize("name", ["failing", "soaked"])
@pytest.mark.parametrize("dark", [False, True])
def test_text_has_enough_contrast(show: Any, request: pytest.FixtureRequest, name: str, dark: bool) -> None:
    page = show(request.getfixturevalue(name), dark=dark)
    low = page.execute_script(
        """const light = c => {
          const [r, g, b] = c.match(/[0-9.]+/g).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const back = e => {
          for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor;
            if (!c.startsWith('rgba(0, 0, 0, 0')) return c;
          }
          return 'rgb(255, 255, 255)';
        };
        return [...document.querySelectorAll('h1, h2, h3, p, li, td, th, .n, .soft, .chip, .tag, .bad, .word, dt, dd')]
          .filter(e => e.getBoundingClientRect().width > 1)
          .map(e => {
            const [a, b] = [light(getComputedStyle(e).color), light(back(e))].sort((x, y) => y - x);
            return [(a + 0.05) / (b + 0.05), e.className, e.textContent.slice(0, 30)];
          })
          .filter(([ratio]) => ratio < 4.5)"""
    )
    assert low == []
    assert page.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches") == dark


def test_a_point_tells_its_figures_by_mouse_and_keyboard(show: Any, passing: Report) -> None:
    page = show(passing)
    point = page.find_element("css selector", "svg.chart-wide .point[data-point='host-openvino'][data-role=optimized]")
    page.execute_script("arguments[0].focus()", point)
    tip = page.find_element("css selector", ".tip")
    assert tip.is_displayed()
    assert tip.text.splitlines()[0] == "host-openvino"
    assert "p50 0.251 ms, p95 0.282 ms" in tip.text
    page.execute_script("arguments[0].blur()", point)
    assert not tip.is_displayed()


def test_a_hash_is_copied_whole(show: Any, passing: Report) -> None:
    page = show(passing)
    button = page.find_element("css selector", "button.hash[data-artifact='raspberry-pi-5'][data-field='chain.file']")
    assert button.get_attribute("title") == passing.artifacts[4].chain.file
    page.execute_script(
        "navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); };"
        "arguments[0].click()",
        button,
    )
    assert page.execute_script("return window.copied") == passing.artifacts[4].chain.file


def test_print_unfolds_everything(show: Any, passing: Report) -> None:
    page = show(passing)
    closed = "return document.querySelectorAll('details:not([open])').length"
    before = page.execute_script(closed)
    assert before > 0
    page.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert page.execute_script(closed) == 0
    page.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert page.execute_script(closed) == before


def test_the_tool_takes_a_picture(tool: ModuleType, browser: Any, passing: Report, tmp_path: Path) -> None:
    page, out = tmp_path / "report.html", tmp_path / "out.png"
    page.write_text(render_html(passing), encoding="utf-8")
    assert tool.main([str(page), str(out), "--width", "900", "--height", "600", "--dark"]) == 0
    data = out.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (900, 600)


def test_the_tool_refuses_a_missing_page(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([str(tmp_path / "none.html"), str(tmp_path / "out.png")]) == 2
    assert "does not exist" in capsys.readouterr().err
