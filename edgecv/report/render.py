"""All forms of a report in one place, and the folder that holds them."""

from __future__ import annotations

from pathlib import Path

from edgecv.report.junit import render_junit
from edgecv.report.markdown import render_markdown
from edgecv.report.page import render_html
from edgecv.report.schema import Report
from edgecv.report.schema_io import REPORT, to_json, write_atomic
from edgecv.report.text import render_text

__all__ = ["FORMS", "render_all", "render_html", "render_junit", "render_markdown", "render_text"]

FORMS = {REPORT: to_json, "report.md": render_markdown, "report.xml": render_junit, "report.html": render_html}
"""File name in the report's folder, and what renders it."""


def render_all(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write report.json, report.md, report.xml (JUnit) and report.html into ``folder`` (made if missing).

    Each file is written in one step, and none before all are rendered. Gives the paths.

    Raises:
        UsageError: the folder cannot be written to.
        TypeError: the recipe or the data description holds a value that JSON has no form for.
    """
    texts = {name: form(report) for name, form in FORMS.items()}
    return tuple(write_atomic(folder / name, text) for name, text in texts.items())
