"""report.json: the round trip, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.figures import AccuracyFigures
from edgecv.errors import ArtifactError, UsageError
from edgecv.report.schema import Report
from edgecv.report.schema_io import from_json, read_report, to_json, write_atomic, write_report


def test_every_report_survives_the_round_trip(any_report: Report, tmp_path: Path) -> None:
    path = write_report(any_report, tmp_path / "new" / "folder")
    assert path.name == "report.json"
    assert read_report(path) == any_report
    assert read_report(path.parent) == any_report
    assert not list(path.parent.glob("*.partial"))


def test_json_is_standard_and_infinite_is_a_string(passing: Report) -> None:
    def refuse(literal: str) -> float:
        raise AssertionError(literal)

    raw = json.loads(to_json(passing), parse_constant=refuse)
    rungs = raw["artifacts"][1]["ladder"]["rungs"]
    assert [rung["sqnr_db"] for rung in rungs] == [118.4, 33.12, "inf", 44.7, None]
    ladder = from_json(to_json(passing)).artifacts[1].ladder
    assert ladder is not None
    assert ladder.rungs[2].sqnr_db == math.inf


def test_nan_survives(passing: Report) -> None:
    again = from_json(to_json(replace(passing, seconds=math.nan)))
    assert math.isnan(again.seconds)


def test_keys_are_sorted_and_text_is_stable(failing: Report) -> None:
    text = to_json(failing)
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert text == to_json(from_json(text))


def test_scores_per_sample_are_left_out(passing: Report) -> None:
    figures = AccuracyFigures("top1", 0.5, 2, per_sample=(1.0, 0.0))
    artifact = replace(passing.artifacts[0], accuracy=figures)
    again = from_json(to_json(replace(passing, artifacts=(artifact,))))
    assert again.artifacts[0].accuracy == replace(figures, per_sample=())


def test_numpy_values_and_paths_become_plain(passing: Report) -> None:
    report = replace(passing, seconds=np.float32(1.5), recipe={"a": np.int64(3), "b": (Path("x/y"), None), 4: True})  # type: ignore[arg-type, dict-item]
    again = from_json(to_json(report))
    assert again.seconds == 1.5
    assert again.recipe == {"a": 3, "b": ["x/y", None], "4": True}


def test_a_value_without_a_json_form_is_named(passing: Report) -> None:
    with pytest.raises(TypeError, match=r"report\.recipe\.model is a object"):
        to_json(replace(passing, recipe={"model": object()}))


def test_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"report\.json"):
        read_report(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        read_report(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not standard JSON"),
        ("{", "not standard JSON"),
        ("[" * 100_000, "not standard JSON"),
        ("[]", "no schema version"),
        ("{}", "no schema version"),
        ('{"schema": 2}', "schema 2; this edgecv reads 1"),
        ('{"schema": "1"}', "schema '1'"),
        ('{"schema": true}', "schema True"),
        ('{"schema": 1}', "report has no 'name'"),
    ],
)
def test_what_is_not_a_report_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        read_report(path)


def test_binary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match="UTF-8"):
        read_report(path)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("seconds",), "soon", r"report\.seconds is 'soon'; a number is needed"),
        (("seconds",), True, r"report\.seconds is True"),
        (("seconds",), None, r"report\.seconds is None"),
        (("seconds",), int("9" * 400), r"report\.seconds is 999"),
        (("outcome",), "great", r"allowed: pass, fail, inconclusive"),
        (("outcome",), [], "allowed: pass"),
        (("artifacts",), {}, r"report\.artifacts is \{\}; a list is needed"),
        (("artifacts", 1, "file_bytes"), 1.5, r"artifacts\[1\]\.file_bytes is 1\.5; a whole number"),
        (("artifacts", 1, "accuracy", "samples"), "12", r"accuracy\.samples is '12'"),
        (("artifacts", 1, "latency", "quick"), 1, r"latency\.quick is 1; true or false"),
        (("artifacts", 1, "chain", "file"), None, r"chain\.file is None; a string"),
        (("machine", "engines"), {"a": 1}, r"engines\.a is 1"),
        (("surprise",), 1, "unknown field 'surprise'"),
        (("machine", "surprise"), 1, "report.machine has the unknown field"),
    ],
)
def test_wrong_values_are_named(passing: Report, where: tuple[str | int, ...], value: object, message: str) -> None:
    raw = json.loads(to_json(passing))
    place = raw
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(ArtifactError, match=message):
        from_json(json.dumps(raw))


def test_nan_literal_is_refused(passing: Report) -> None:
    text = to_json(passing).replace('"seconds": 312.4', '"seconds": NaN')
    with pytest.raises(ArtifactError, match="literal NaN"):
        from_json(text)


def test_a_field_with_a_default_may_be_missing(passing: Report) -> None:
    raw = json.loads(to_json(passing))
    del raw["notes"], raw["artifacts"][0]["chain"]
    again = from_json(json.dumps(raw))
    assert again.notes == ()
    assert again.artifacts[0].chain.file == ""


def test_whole_numbers_are_read_as_float_where_float_is_meant(passing: Report) -> None:
    again = from_json(to_json(replace(passing, seconds=3)))
    assert type(again.seconds) is float
    effect = again.steps[1].effect
    assert type(effect["macs_before"]) is int
    assert type(effect["top1_before"]) is float


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "report.json", "")


def test_a_lone_surrogate_does_not_lose_the_report(tmp_path: Path, passing: Report) -> None:
    path = write_report(replace(passing, name="a\udcffb"), tmp_path)
    assert "\\udcff" in path.read_text()
