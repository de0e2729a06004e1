"""A pipeline's JSON file: what is read, what is refused and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecv.errors import UsageError
from edgecv.runtime.spec import MAX_SPEC_BYTES, PipelineSpec, SecondStage, read_spec


def write(folder: Path, **values: Any) -> Path:
    path = folder / "pipeline.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_short_forms_and_relative_paths(tmp_path: Path) -> None:
    (tmp_path / "car.mp4").write_bytes(b"x")
    file = write(tmp_path, detect="yolo", second="pose", camera="car.mp4", track="sort", sinks=["jsonl=out.jsonl"])
    spec = read_spec(file)
    assert spec.detect == (str(tmp_path / "yolo"),)
    assert spec.second == SecondStage(str(tmp_path / "pose"))
    assert spec.camera == str(tmp_path / "car.mp4")
    spec.check()
    ladder = read_spec(write(tmp_path, detect=["a", "/b"], camera=0))
    assert ladder.detect == (str(tmp_path / "a"), "/b")
    assert ladder.camera == "0"


def test_policy_follows_the_camera() -> None:
    assert PipelineSpec().policy_for(live=True) == "latest"
    assert PipelineSpec().policy_for(live=False) == "every"
    assert PipelineSpec(policy="every").policy_for(live=True) == "every"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"detekt": "x"}, "unknown field 'detekt'; allowed: camera, detect"),
        ({"frames": "many"}, "frames is 'many'"),
        ({"policy": "some"}, "policy is 'some'; allowed: auto, every, latest"),
        ({"second": {"artifact": "x", "often": 2}}, "unknown field 'often'"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match="pipeline") as caught:
        read_spec(write(tmp_path, **values))
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "\x00", "[" * 100_000])
def test_what_is_no_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError):
        read_spec(path)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_spec(tmp_path / "none.json")
    big = tmp_path / "big.json"
    big.write_bytes(b" " * (MAX_SPEC_BYTES + 1))
    with pytest.raises(UsageError, match="small JSON file"):
        read_spec(big)


def test_every_problem_at_once() -> None:
    spec = PipelineSpec(model=("a",), track="sort", frames=0, score=2.0, second=SecondStage("b", every=0, margin=99))
    with pytest.raises(UsageError) as caught:
        spec.check()
    for word in ("track and a second stage", "frames is 0", "score is 2.0", "second.every is 0", "second.margin is 99"):
        assert word in str(caught.value)
    with pytest.raises(UsageError, match="give either detect"):
        PipelineSpec().check()
    with pytest.raises(UsageError, match="seconds is nan"):
        PipelineSpec(detect=("a",), seconds=float("nan")).check()
