"""A network that streams in the camera loop: frames are answered with those before, and no loss is bridged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.artifact import read_manifest, write_manifest
from edgecv.core.contract import Clip, InputContract
from edgecv.core.frame import Frame
from edgecv.core.state import StateTensor
from edgecv.errors import ArtifactError, DataError, ModelError
from edgecv.measure.latency import LatencyPlan, measure_latency
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import load_artifact
from edgecv.runtime.work import load_levels

from .test_clips_loop import FAMILY, seen

pytestmark = pytest.mark.build  # the model file is made with onnx
CLIP = Clip(frames=4, fps=10.0, stream=True)
CONTRACT = InputContract(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,), range=(0.0, 255.0), clip=CLIP)


def write_watcher(path: Path, *, kept: int = 3) -> Path:
    """A network whose four scores are the gray levels of the last four frames; its state are those of three."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["level"], keepdims=0),
        helper.make_node("Reshape", ["level", "one"], ["now"]),
        helper.make_node("Concat", ["before", "now"], ["y"], axis=1),
        helper.make_node("Slice", ["y", "from", "to", "axis"], ["after"]),
    ]
    numbers = {"axes": [1, 2, 3], "one": [1, 1], "from": [4 - kept], "to": [4], "axis": [1]}
    graph = helper.make_graph(
        nodes,
        "watcher",
        [value("x", (1, 1, 8, 8)), value("before", (1, 3))],
        [value("y", (1, 4)), value("after", (1, kept))],
        [numpy_helper.from_array(np.array(items, np.int64), name) for name, items in numbers.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


@pytest.fixture
def watcher(tmp_path: Path) -> Path:
    """An artifact that streams and answers with the levels of the last four frames, 0 for those that were not."""
    file = write_watcher(tmp_path / "watcher.onnx")
    return import_model(file, out=tmp_path / "watcher", name="watcher", family=FAMILY, contract=CONTRACT)


def clip_of(*levels: int) -> np.ndarray:
    return np.stack([np.full((12, 12, 3), level, np.uint8) for level in levels])


def test_each_frame_is_answered_with_those_before_it(watcher: Path) -> None:
    found = seen(watcher, [number / 10 for number in range(8)])
    assert [levels for levels, _ in found[:5]] == [
        [0, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 1, 2],
        [0, 1, 2, 3],
        [1, 2, 3, 4],
    ]
    assert found[7][0] == [4, 5, 6, 7]
    assert [round(seconds, 3) for _, seconds in found[:6]] == [0.0, 0.1, 0.2, 0.3, 0.3, 0.3]


def test_of_a_faster_camera_frames_in_between_are_answered_and_forgotten(watcher: Path) -> None:
    found = seen(watcher, [number / 30 for number in range(40)])
    assert len(found) == 40
    assert [levels[3] for levels, _ in found] == list(range(40))
    steps = np.diff(found[39][0])
    assert steps[:2].tolist() == [3, 3]


def test_of_a_slower_camera_a_frame_stands_for_those_that_are_missing(watcher: Path) -> None:
    assert seen(watcher, [number / 5 for number in range(4)])[3][0] == [2, 2, 3, 3]


def test_a_loss_of_the_camera_is_not_bridged(watcher: Path) -> None:
    found = seen(watcher, [0.0, 0.1, 0.2, 0.3, 5.0, 5.1])
    assert found[3][0] == [0, 1, 2, 3]
    assert found[4][0] == [0, 0, 0, 4]
    assert found[4][1] == 0.0
    assert found[5][0] == [0, 0, 4, 5]


def test_a_picture_that_cannot_be_used_leaves_the_state(watcher: Path) -> None:
    (level,) = load_levels((str(watcher),), threads=1, score=None)
    level.warm_up()

    def answer(value: int, time_s: float) -> list[float]:
        inputs, moment = level.fill(Frame(np.full((12, 12), value, np.uint8), time_s, 0), 0)
        ((scores, *rest),) = level.infer(inputs, moment)
        assert rest == [], "the state is no answer"
        return [float(item) for item in scores[0]]

    assert answer(1, 0.0) == [0, 0, 0, 1], "the warm-up is forgotten"
    assert answer(2, 0.1) == [0, 0, 1, 2]
    with pytest.raises(DataError):
        level.fill(Frame(np.zeros((0, 5), np.uint8), 0.2, 2), 1)
    assert answer(3, 0.2) == [0, 1, 2, 3]
    level.model.close()


def test_a_clip_begins_anew_and_single_frames_follow_each_other(watcher: Path) -> None:
    with load_artifact(watcher) as model:
        assert model.manifest.state == (StateTensor("before", "after", (1, 3), "float32"),)
        for _ in range(2):
            assert model.predict(clip_of(9, 5, 2, 7)).classes.scores.tolist() == [9, 5, 2, 7]
        assert model.predict(clip_of(4)[0]).classes.scores.tolist() == [5, 2, 7, 4]
        assert model.predict(clip_of(6)[0]).classes.scores.tolist() == [2, 7, 4, 6]
        with pytest.raises(DataError, match="uint8 \\(4, H, W, 3\\)"):
            model.predict(clip_of(1, 2))


def test_the_time_of_one_frame_is_measured(watcher: Path) -> None:
    with load_artifact(watcher) as model:
        frames = model.subject.apart([clip_of(1, 2, 3, 4), clip_of(5, 6, 7, 8)])
        assert [int(frame[0, 0, 0]) for frame in frames] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert model.subject.window() is None
        plan = LatencyPlan(min_runs=8, min_s=0.05, warmup_runs=2, warmup_s=0.01, warmup_max_s=0.05, quick=True)
        figures = measure_latency(model.subject, [clip_of(1, 2, 3, 4)], plan=plan)
        assert figures.end_to_end.samples >= 8


def test_a_manifest_whose_state_is_not_that_of_the_file_is_refused(watcher: Path) -> None:
    made = read_manifest(watcher)
    still = replace(made, contract=CONTRACT.still)
    for wrong, words in (
        (replace(made, state=()), "state is not what its inputs and outputs say"),
        (replace(made, state=(StateTensor("before", "y", (1, 3), "float32"),)), "state is not what its inputs"),
        (replace(made, outputs=made.outputs[:1], state=()), "2 inputs and 1 outputs"),
        (still, "its contract has no stream"),
        (replace(still, state=()), "exactly one is allowed"),
    ):
        write_manifest(watcher, wrong)
        with pytest.raises(ArtifactError, match=words):
            load_artifact(watcher)


def test_a_state_that_does_not_fit_itself_is_not_imported(tmp_path: Path) -> None:
    file = write_watcher(tmp_path / "broken.onnx", kept=2)
    with pytest.raises(ModelError, match="both must be the same"):
        import_model(file, out=tmp_path / "broken", name="broken", family=FAMILY, contract=CONTRACT)
