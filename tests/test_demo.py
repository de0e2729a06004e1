"""The shipped demo: small, whole, the same on every engine, and good enough to follow the synthetic camera."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecv import backends, cli, demo
from edgecv.core.artifact import check_files, read_manifest
from edgecv.runtime.demo import open_demo
from edgecv.runtime.load import load_artifact
from edgecv.runtime.spec import PipelineSpec
from edgecv.vision.boxes import iou
from edgecv.vision.scenes import Scene, SceneSpec

HERE = [name for name in demo.ENGINES if backends.get(name).missing(to="run") is None]


@pytest.mark.parametrize("engine", demo.ENGINES)
def test_each_artifact_is_small_and_whole(engine: str) -> None:
    folder = demo.artifact(engine)
    check_files(folder, read_manifest(folder))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 550_000


@pytest.mark.parametrize("engine", HERE)
def test_each_artifact_proves_itself(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(demo.artifact(engine))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "pass: engine input against training input: equal" in "\n".join(lines)
    assert len([line for line in lines if line.startswith("pass: ")]) >= 4
    assert not [line for line in lines if line.startswith(("fail", "not all"))]


@pytest.mark.parametrize("engine", HERE)
def test_it_follows_the_synthetic_camera(engine: str) -> None:
    spec = PipelineSpec(detect=(str(demo.artifact(engine)),), frames=600)
    session, score = open_demo(spec)
    with session:
        session.start()
        assert session.wait(120)
    assert session.error is None
    assert score.truths > 1500
    assert score.mota >= 0.95


def test_the_engines_agree() -> None:
    frames = [Scene(SceneSpec(objects=4, seed=11)).frame(index).image for index in range(0, 300, 10)]
    found = {}
    for engine in HERE:
        with load_artifact(demo.artifact(engine)) as model:
            found[engine] = [model.predict(frame) for frame in frames]
    for engine in HERE[1:]:
        near = total = 0
        for mine, other in zip(found[HERE[0]], found[engine], strict=True):
            total += max(len(mine), len(other))
            pairs = iou(mine.boxes, other.boxes)
            if pairs.size:
                best = pairs.argmax(axis=1)
                near += int((np.abs(mine.boxes - other.boxes[best]).max(axis=1) <= 1.0).sum())
        assert near >= 0.99 * total, engine


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sinks = ["--sink", f"jsonl={tmp_path}/o.jsonl", "--timeline", str(tmp_path / "t.json")]
    code = cli.main(["run", "--demo", "--frames", "60", "--quiet", "--report", str(tmp_path / "out"), *sinks])
    shown = capsys.readouterr()
    assert code == 0
    assert "infer" in shown.out
    assert "MOTA " in shown.out
    assert "60 frames" in shown.out
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 60
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["loop"]["frames"] == 60
    assert [stage["name"] for stage in report["loop"]["stages"]][:5] == [
        "wait",
        "preprocess",
        "queue",
        "infer",
        "decode",
    ]
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


def test_json_lines_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--demo", "--frames", "5", "--quiet"]) == 0
    capsys.readouterr()
    artifact = str(demo.artifact(HERE[0]))
    camera = ["--camera", "synthetic:size=160x120,frames=5", "--track", "sort"]
    assert cli.main(["run", "--detect", artifact, *camera, "--json", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["frame"] for line in lines] == [0, 1, 2, 3, 4]


def test_a_pipeline_file_with_flags_over_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pipeline.json"
    values = {"detect": str(demo.artifact(HERE[0])), "camera": "synthetic:frames=50", "track": "sort", "frames": 30}
    file.write_text(json.dumps(values))
    assert cli.main(["run", str(file), "--frames", "7", "--quiet"]) == 0
    assert "7 frames, as asked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--demo", "--camera", "synthetic:size=x"], "no size=x"),
        (["nothing.json"], "cannot be read"),
        (["--camera", "synthetic:"], "give either detect"),
        (["nothing", "a.png"], "is no artifact"),
        ([str(demo.artifact(HERE[0])), "drive.mp4"], "--camera drive.mp4"),
        (["--demo", "--sink", "video=a.gif"], "must end in .mp4"),
        (["--demo", "--track", "best"], "no tracker 'best'"),
    ],
)
def test_wrong_commands_exit_with_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", *words]) == 2
    assert message in capsys.readouterr().err
