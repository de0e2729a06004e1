"""`edgecv report` and `edgecv compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecv.report.compare import compare as compare_reports
from edgecv.report.compare_text import comparison_json, comparison_markdown, comparison_text
from edgecv.report.render import render_html, render_junit, render_markdown, render_text
from edgecv.report.schema_io import read_report, to_json, write_atomic

_FORMATS = {
    "text": render_text,
    "markdown": render_markdown,
    "html": render_html,
    "junit": render_junit,
    "json": to_json,
}


def report(options: argparse.Namespace) -> int:
    """Print a report in another form, or write it to a file."""
    text = _FORMATS[options.format](read_report(Path(options.report)))
    if options.out:
        print(write_atomic(Path(options.out), text))
    else:
        print(text.rstrip("\n"))
    return 0


def compare(options: argparse.Namespace) -> int:
    """Print what changed; the exit code says whether something got worse than allowed."""
    comparison = compare_reports(
        read_report(Path(options.before)),
        read_report(Path(options.after)),
        max_accuracy_drop=options.max_accuracy_drop,
        max_latency_increase=options.max_latency_increase,
        max_size_increase=options.max_size_increase,
    )
    forms = {"text": comparison_text, "markdown": comparison_markdown, "json": comparison_json}
    print(forms[options.format](comparison).rstrip("\n"))
    return comparison.exit_code
