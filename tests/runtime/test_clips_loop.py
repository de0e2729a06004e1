"""Clips in the camera loop with the null engine: the right frames of any camera, forgotten after a loss."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.artifact import Chain, file_entries, files_hash, read_manifest, write_manifest
from edgecv.core.contract import Clip, InputContract
from edgecv.core.frame import Frame
from edgecv.core.recipe import FamilySpec
from edgecv.core.stream import FrameResult, StreamFacts
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.measure.latency import LatencyPlan, measure_latency
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import load_artifact
from edgecv.runtime.second import open_second
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec, SecondStage

from .conftest import manifest_of, null_file

CLIP = Clip(frames=4, fps=10.0)
LABELS = ("oldest", "older", "newer", "newest")
FAMILY = FamilySpec("video", LABELS, outputs="probabilities", top_k=4)
CONTRACT = InputContract(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,), range=(0.0, 255.0), clip=CLIP)
INPUT = TensorSpec("x", (1, 4, 8, 8), "float32", "NCHW")
OUTPUT = TensorSpec("y", (1, 4), "float32", "NC")


@pytest.fixture
def watcher(tmp_path: Path) -> Path:
    """An artifact for clips whose four scores are the gray levels of its four frames."""
    folder = tmp_path / "watcher"
    null_file(folder, input=INPUT, output=OUTPUT)
    entries = file_entries(folder, ["model.null"])
    made = replace(
        manifest_of(folder),
        family=FAMILY,
        contract=CONTRACT,
        inputs=(INPUT,),
        outputs=(OUTPUT,),
        files=entries,
        chain=Chain(file=files_hash(entries)),
    )
    write_manifest(folder, made)
    return folder


@dataclass
class Levels:
    """A file of gray frames; frame n has level n and the time ``times_s[n]``."""

    times_s: list[float]
    index: int = 0

    def open(self) -> StreamFacts:
        return StreamFacts("levels", (12, 12), 100.0, False, len(self.times_s))

    def read(self) -> Frame | None:
        if self.index >= len(self.times_s):
            return None
        self.index += 1
        number = self.index - 1
        return Frame(np.full((12, 12), number, np.uint8), time.monotonic(), number, "levels", self.times_s[number])

    def close(self) -> None:
        pass


@dataclass
class Kept:
    items: list[FrameResult] = field(default_factory=list)

    def open(self, facts: StreamFacts) -> None:
        pass

    def write(self, item: FrameResult) -> None:
        self.items.append(item)

    def close(self) -> None:
        pass


def seen(folder: Path, times_s: list[float]) -> list[tuple[list[float], float]]:
    """For each frame the levels of its clip and how far the answer looks back."""
    sink = Kept()
    spec = PipelineSpec(model=(str(folder),), policy="every")
    with open_session(spec, source=lambda: Levels(times_s), sinks=[("kept", sink, "every")]) as session:
        session.start()
        assert session.wait(20)
        assert session.error is None
    return [(item.result.classes.scores.tolist(), item.result.seconds) for item in sink.items]


def test_each_frame_is_answered_with_the_clip_that_ends_there(watcher: Path) -> None:
    found = seen(watcher, [number / 10 for number in range(8)])
    assert [clip for clip, _ in found[:5]] == [[0] * 4, [0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4]]
    assert found[7][0] == [4, 5, 6, 7]
    assert [round(seconds, 3) for _, seconds in found[:6]] == [0.0, 0.1, 0.2, 0.3, 0.3, 0.3]


def test_a_faster_camera_shows_the_same_time(watcher: Path) -> None:
    assert seen(watcher, [number / 30 for number in range(40)])[39][0] == [30, 33, 36, 39]


def test_a_loss_of_the_camera_is_not_bridged(watcher: Path) -> None:
    found = seen(watcher, [0.0, 0.1, 0.2, 0.3, 5.0, 5.1])
    assert found[3][0] == [0, 1, 2, 3]
    assert found[4] == ([4, 4, 4, 4], 0.0)
    assert found[5][0] == [4, 4, 4, 5]


@dataclass
class Live(Levels):
    """The same as a live camera, one frame every ``period_s``."""

    period_s: float = 0.02

    def open(self) -> StreamFacts:
        return StreamFacts("live", (12, 12), 1 / self.period_s, True, None)

    def read(self) -> Frame | None:
        time.sleep(self.period_s)
        self.index += 1
        return Frame(np.full((12, 12), self.index % 256, np.uint8), time.monotonic(), self.index, "live")


def test_a_slow_engine_sees_the_frames_that_it_does_not_answer(watcher: Path) -> None:
    made = read_manifest(watcher)
    write_manifest(watcher, replace(made, engine_options={"delay_ms": 400}))
    sink = Kept()
    spec = PipelineSpec(model=(str(watcher),), policy="latest", frames=6)
    with open_session(spec, source=lambda: Live([]), sinks=[("kept", sink, "every")]) as session:
        session.start()
        assert session.wait(20)
        assert session.error is None
    last = sink.items[-1]
    oldest, older, newer, newest = last.result.classes.scores.tolist()
    assert newest == last.frame.index + 1
    # Frames come every 20 ms or more and clips have steps of 100 ms; answers alone would be 400 ms apart.
    assert newest - newer <= 8
    assert oldest < older < newer < newest
    assert last.result.seconds == pytest.approx(CLIP.span_s)


def test_a_clip_is_answered_like_the_loop_would(watcher: Path) -> None:
    clip = np.stack([np.full((12, 12, 3), level, np.uint8) for level in (9, 5, 2, 7)])
    with load_artifact(watcher) as model:
        result = model.predict(clip)
        assert result.classes.scores.tolist() == [9, 5, 2, 7]
        assert (result.brief(), result.seconds) == ("oldest", None)
        with pytest.raises(DataError, match="give it a video or a camera"):
            model.predict(clip[0])
        plan = LatencyPlan(min_runs=8, min_s=0.05, warmup_runs=2, warmup_s=0.01, warmup_max_s=0.05, quick=True)
        figures = measure_latency(model.subject, [clip], plan=plan)
        assert figures.end_to_end.samples >= 4


def test_clips_are_not_for_a_second_stage(watcher: Path) -> None:
    with pytest.raises(UsageError, match="takes clips"):
        open_second(SecondStage(str(watcher)), ("person",), threads=1)


def test_import_holds_the_clip_against_the_file(tmp_path: Path) -> None:
    file = null_file(tmp_path / "five", input=INPUT, output=OUTPUT)
    made = import_model(file, out=tmp_path / "made", name="five", family=FAMILY, contract=CONTRACT)
    with load_artifact(made) as model:
        assert model.manifest.contract.clip == CLIP
    for contract, words in ((CONTRACT.still, "needs a clip"), (replace(CONTRACT, clip=Clip(5, 10.0)), "5 frames")):
        with pytest.raises(ModelError, match=words):
            import_model(file, out=tmp_path / "other", name="five", family=FAMILY, contract=contract)


def test_a_file_with_an_axis_of_frames_is_imported(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    for shape, layout, axes in (((1, 3, 4, 8, 8), "NCTHW", [1, 3, 4]), ((1, 4, 3, 8, 8), "NTCHW", [2, 3, 4])):
        graph = helper.make_graph(
            [helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)],
            "means",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])],
            [numpy_helper.from_array(np.array(axes, np.int64), "axes")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, str(tmp_path / f"{layout}.onnx"))
        contract = InputContract(size=(8, 8), range=(0.0, 255.0), clip=CLIP)
        made = import_model(
            tmp_path / f"{layout}.onnx", out=tmp_path / layout, name="five", family=FAMILY, contract=contract
        )
        clip = np.stack([np.full((12, 12, 3), level, np.uint8) for level in (9, 5, 2, 7)])
        with load_artifact(made) as loaded:
            assert loaded.manifest.inputs[0].layout == layout
            assert loaded.predict(clip).classes.scores.tolist() == [9, 5, 2, 7]
        assert seen(made, [number / 10 for number in range(5)])[4][0] == [1, 2, 3, 4]
