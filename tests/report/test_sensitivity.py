from __future__ import annotations

import math
import re

from edgecv.core.sensitivity import Sensitivity, SensitivityRow
from edgecv.report.sensitivity import render_sensitivity_html, render_sensitivity_text

TABLE = Sensitivity(
    rows=(
        SensitivityRow("layer1.0<b>", "conv2d", ("x", "w"), 12.5, 0.02, 1.5, 0.75),
        SensitivityRow("head", "linear", ("y",), 40.0, None, 0.5, 0.25),
        SensitivityRow("idle", "activation", ("z",), math.inf),
    ),
    pictures=8,
    sqnr_db=11.0,
    metric="top1",
    float_value=0.8,
    int8_value=0.7,
)


def test_text_names_every_layer_worst_first_with_its_figures() -> None:
    lines = render_sensitivity_text(TABLE, name="net").splitlines()
    assert lines[0].startswith("net: all of it in int8 has 11.0 dB of signal to noise on 8 pictures")
    body = lines[-3:]
    assert [line.split()[0] for line in body] == ["layer1.0<b>", "head", "idle"]
    assert "12.5 dB" in body[0]
    assert " 2.00 " in body[0]
    assert "drop, points" in lines[-5]
    assert "75.0%" in body[0]
    assert "equal" in body[2]


def test_without_a_metric_none_is_named() -> None:
    text = render_sensitivity_text(Sensitivity(TABLE.rows, 8, 11.0), name="net")
    assert "float" not in text.splitlines()[0]


def test_the_page_has_a_bar_for_each_finite_row_and_fetches_nothing() -> None:
    page = render_sensitivity_html(TABLE, name="net")
    assert page.count("<rect") == 4  # two layers, each with its share of the time
    assert "layer1.0&lt;b&gt;" in page
    assert "<b>" not in page
    assert not re.search(r"https?://|src=", page)
    widths = [float(width) for width in re.findall(r'<rect[^>]*width="([0-9.]+)"[^>]*height="10"', page)]
    assert widths == sorted(widths)
    assert 'data-field="sqnr_db"' in page


def test_a_table_without_rows_still_renders() -> None:
    empty = Sensitivity((), 1, math.inf)
    assert "<svg" in render_sensitivity_html(empty, name="net")
    assert render_sensitivity_text(empty, name="net")
