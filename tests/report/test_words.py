"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from edgecv.core.figures import Interval, Verdict
from edgecv.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.012"), (0.9994, "0.999"), (0.9996, "1.00"), (4.217, "4.22"), (9.996, "10.0"), (99.96, "100"),
     (1234.5, "1234"), (None, "\u2013"), (math.inf, "inf")],
)  # fmt: skip
def test_milliseconds_keep_three_figures(value: float | None, text: str) -> None:
    assert words.ms_text(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(812, "812 B"), (84_312, "84.3 kB"), (214_312, "0.21 MB"), (52_100_000, "52.10 MB"), (999_499_999, "999 MB"),
     (1_200_000_000, "1.20 GB"), (None, "\u2013")],
)  # fmt: skip
def test_sizes_are_in_powers_of_ten(count: int | None, text: str) -> None:
    assert words.bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3725, "1 h 02 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.seconds_text(seconds) == text


def test_shares_are_per_cent_and_others_are_not() -> None:
    assert words.metric_text("top1", 0.98333) == "98.33 %"
    assert words.metric_text("mota", 0.98333) == "0.9833"
    assert words.metric_text("top1", None) == words.ABSENT


def test_minus_zero_is_zero_and_minus_is_a_minus_sign() -> None:
    assert words.points_text(-0.00001) == "0.00"
    assert words.points_text(-0.0028) == "\u22120.28"
    assert words.interval_text(Interval(-0.00001, 0.01), percent=True) == "0.00 to 1.00"


def test_change() -> None:
    assert words.change_text(2.0, 1.0) == "\u221250.0 %"
    assert words.change_text(1.0, 1.5) == "+50.0 %"
    assert words.change_text(1.0, 1.0000001) == "0.0 %"
    assert words.change_text(0.0, 1.0) == "from 0"


def test_clean_takes_what_could_move_a_cursor_or_turn_text() -> None:
    assert words.clean("a\x1b[31mb\u202ec\x00d\ne\tf\u2028g") == "a[31mbcd e fg"
    assert words.clean("a\nb\tc", lines=True) == "a\nb\tc"
    assert words.clean("\u00e9\u6f22\u5b57\U0001f600") == "\u00e9\u6f22\u5b57\U0001f600"


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (Verdict("accuracy.top1.max_drop", 0.01, 0.0028, "share", "pass"), "top-1 drop 0.28 points, limit 1 point"),
        (Verdict("accuracy.top1.max_drop", math.inf, 0.0, "share", "pass"), "top-1 drop 0.00 points, limit none"),
        (Verdict("accuracy.top5.min", 0.97, 0.9611, "share", "fail"), "top-5 96.11 %, at least 97 %"),
        (Verdict("latency.p95_ms", 5.0, 6.104, "ms", "fail"), "p95 6.10 ms, limit 5 ms"),
        (Verdict("latency.p99_ms", 100.0, None, "ms", "not-checked"), "p99 not measured, limit 100 ms"),
        (Verdict("size_mb", 0.5, 0.214312, "MB", "pass"), "size 0.214 MB, limit 0.5 MB"),
        (Verdict("size_ratio", 0.3, 0.2637, "share", "pass"), "size ratio 0.26\u00d7, limit 0.30\u00d7"),
        (Verdict("power", 2.5, 3.0, "W", "fail"), "power 3 W, limit 2.5 W"),
    ],
)  # fmt: skip
def test_verdicts_as_the_gate_gives_them(verdict: Verdict, text: str) -> None:
    assert words.verdict_text(verdict) == text
