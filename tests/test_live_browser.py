"""The live page in a real browser: frames move, numbers change, nothing is fetched from elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgecv.runtime.demo import open_demo
from edgecv.runtime.spec import PipelineSpec

from .test_generated import load_tool

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def test_the_page_lives(root: Path, tmp_path: Path) -> None:
    tool = load_tool(root, "screenshot")
    found = tool.find_browser()
    if found is None:
        pytest.skip("Chromium and its driver are not installed")
    camera = "synthetic:size=320x240,objects=4,seed=4,fps=30,pace=realtime"
    session, _ = open_demo(PipelineSpec(camera=camera, frames=100_000, live=":0"))
    with session, tool.open_browser(*found) as page:
        session.start()
        assert session.live is not None
        page.get(session.live.address)
        tool.set_screen(page, width=1280, height=900)
        end_s = time.monotonic() + 20
        seen: list[int] = []
        while time.monotonic() < end_s and len(set(seen)) < 5:
            seen.append(int(page.find_element("id", "frame").get_attribute("data-number") or 0))
            time.sleep(0.2)
        assert len(set(seen)) >= 5, "the picture moves"
        assert seen == sorted(seen)
        assert "running" in page.find_element("id", "state").text
        assert float(page.find_element("id", "fps").text) > 5
        # In one step: the page replaces its rows a few times a second.
        rows = page.execute_script("return [...document.querySelectorAll('#stages .stage')].map(row => row.innerText)")
        stages = [row.split("\n")[0].split(" ")[0] for row in rows]
        assert stages[:5] == ["wait", "preprocess", "queue", "infer", "decode"]
        size = page.execute_script(
            "const i = document.getElementById('frame'); return [i.naturalWidth, i.naturalHeight]"
        )
        assert size == [320, 240]
        tool.take(page, tmp_path / "live.png", full=True)
        assert (tmp_path / "live.png").stat().st_size > 20_000
        assert page.get_log("browser") == [], "no error, nothing refused by the page's own policy"
