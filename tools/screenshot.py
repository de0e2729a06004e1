"""Take a picture of a report page with headless Chromium: screenshot.py REPORT.html OUT.png [options]."""

from __future__ import annotations

import argparse
import base64
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def find_browser() -> tuple[str, str] | None:
    """Paths of Chromium and of its driver; None where one of them is missing."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextlib.contextmanager
def open_browser(browser: str, driver: str) -> Iterator[WebDriver]:
    """A fresh headless Chromium that logs its console and its requests; gone when the block ends."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(prefix="edgecv-browser-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        opened = webdriver.Chrome(options=options, service=Service(executable_path=driver))
        try:
            yield opened
        finally:
            opened.quit()


def set_screen(opened: WebDriver, *, width: int, height: int, dark: bool = False, scale: float = 1.0) -> None:
    """Make the page's screen ``width`` x ``height`` CSS pixels, light or dark; below 600 wide it is a phone."""
    screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def take(opened: WebDriver, out: Path, *, full: bool) -> None:
    """Write a PNG of the screen, or with ``full`` of the whole page."""
    wanted: dict[str, Any] = {"format": "png", "captureBeyondViewport": full}
    if full:
        size = opened.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        wanted["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    data = opened.execute_cdp_cmd("Page.captureScreenshot", wanted)["data"]
    out.write_bytes(base64.b64decode(data))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="report.html")
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--width", type=int, default=1280, help="in CSS pixels (default 1280)")
    parser.add_argument("--height", type=int, default=900, help="in CSS pixels (default 900)")
    parser.add_argument("--scale", type=float, default=1.0, help="picture pixels a CSS pixel (default 1)")
    parser.add_argument("--dark", action="store_true", help="in dark colours")
    parser.add_argument("--full", action="store_true", help="the whole page, not only the first screen")
    given = parser.parse_args(arguments)
    if not given.page.is_file():
        print(f"{given.page} does not exist; name a report.html", file=sys.stderr)
        return 2
    found = find_browser()
    if found is None:
        print("chromium or chromedriver is missing; install both (Debian: chromium, chromium-driver)", file=sys.stderr)
        return 5
    with open_browser(*found) as opened:
        set_screen(opened, width=given.width, height=given.height, dark=given.dark, scale=given.scale)
        opened.get(given.page.resolve().as_uri())
        take(opened, given.out, full=given.full)
    return 0


if __name__ == "__main__":
    sys.exit(main())
