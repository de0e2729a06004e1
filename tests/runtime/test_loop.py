"""The camera loop with the null engine: order, policies, failures, ends, bounded stops, second stage."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import edgecv
from edgecv.core.artifact import Chain, file_entries, files_hash, write_manifest
from edgecv.core.contract import InputContract
from edgecv.core.frame import Frame
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Classification, Detections
from edgecv.core.stream import FrameResult, StreamFacts
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ArtifactError, EdgecvError, ToolchainError, UsageError
from edgecv.runtime.loop import MAX_FAILURES_IN_A_ROW
from edgecv.runtime.session import Session, open_session
from edgecv.runtime.spec import PipelineSpec, SecondStage

from .conftest import manifest_of


@dataclass
class Pictures:
    """A source in memory: ``count`` gray levels, one every ``period_s`` (0: as fast as it is read)."""

    count: int
    live: bool = False
    period_s: float = 0.0
    index: int = 0

    def open(self) -> StreamFacts:
        return StreamFacts("memory", (24, 32), 100.0, self.live, self.count)

    def read(self) -> Frame | None:
        if self.index >= self.count:
            if self.live:
                time.sleep(5)
            return None
        if self.period_s:
            time.sleep(self.period_s)
        self.index += 1
        image = np.full((24, 32, 3), self.index % 256, np.uint8)
        return Frame(image, time.monotonic(), self.index - 1, "memory", None if self.live else self.index / 100)

    def close(self) -> None:
        pass


class Collect:
    """A sink that keeps everything."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.items: list[FrameResult] = []
        self.pause_s, self.closed = pause_s, 0

    def open(self, facts: StreamFacts) -> None:
        pass

    def write(self, item: FrameResult) -> None:
        time.sleep(self.pause_s)
        self.items.append(item)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """An artifact whose null engine gives two boxes in the layout of yolo-end2end."""
    folder = tmp_path / "detector"
    folder.mkdir()
    given = TensorSpec("x", (1, 3, 8, 10), "float32", "NCHW")
    gives = TensorSpec("y", (1, 2, 6), "float32")
    text = {"format": "edgecv-null-1", "inputs": [asdict(given)], "outputs": [asdict(gives)]}
    (folder / "model.null").write_text(json.dumps(text))
    entries = file_entries(folder, ["model.null"])
    manifest = replace(
        manifest_of(folder),
        family=FamilySpec("detection", ("thing", "other"), head="yolo-end2end", score_threshold=0.0),
        contract=InputContract(size=(8, 10), range=(0.0, 255.0)),
        inputs=(given,),
        outputs=(gives,),
        files=entries,
        chain=Chain(file=files_hash(entries)),
    )
    write_manifest(folder, manifest)
    return folder


def run(spec: PipelineSpec, source: Pictures, *sinks: Collect) -> Session:
    named = [(f"sink{index}", sink, "every") for index, sink in enumerate(sinks)]
    with open_session(spec, source=lambda: source, sinks=named) as session:  # type: ignore[arg-type]
        session.start()
        assert session.wait(20), "the loop did not end"
    return session


def test_every_frame_in_order_with_its_times(artifact: Path) -> None:
    sink = Collect()
    session = run(PipelineSpec(model=(str(artifact),)), Pictures(60), sink)
    assert [item.frame.index for item in sink.items] == list(range(60))
    assert all(isinstance(item.result, Classification) for item in sink.items)
    assert set(sink.items[5].trace.stages_ms) == {"wait", "preprocess", "queue", "infer", "decode"}
    starts = [start for _, start, _ in sink.items[5].trace.spans]
    assert starts == sorted(starts)
    figures = session.figures()
    assert figures.frames == 60
    assert figures.ended == "the stream ended"
    assert figures.failed == figures.stale == 0
    assert figures.sinks[0].written == 60
    assert figures.age is None, "a file at full speed has no age"
    assert sink.closed == 1


def test_results_are_those_of_the_model_alone(artifact: Path) -> None:
    from edgecv.runtime.load import load_artifact

    sink = Collect()
    run(PipelineSpec(model=(str(artifact),)), Pictures(8), sink)
    with load_artifact(artifact) as model:
        for item in sink.items:
            np.testing.assert_array_equal(item.result.scores, model.predict(item.frame.image).scores)


def slowed(folder: Path, delay_ms: float) -> None:
    manifest = manifest_of(folder)
    (folder / "manifest.json").unlink()
    write_manifest(folder, replace(manifest, engine_options={"delay_ms": delay_ms}))


def test_latest_keeps_up_with_a_camera_that_is_faster_than_the_model(artifact: Path) -> None:
    slowed(artifact, 30)
    sink = Collect()
    source = Pictures(150, live=True, period_s=0.004)
    spec = PipelineSpec(model=(str(artifact),), frames=15, deadline_ms=25)
    session = run(spec, source, sink)
    figures = session.figures()
    assert figures.frames == 15
    assert figures.policy == "latest"
    assert figures.camera["dropped"] > 30
    assert figures.age is not None
    assert figures.age.p50_ms < 75, "a frame waits for one inference at most, not for a queue"
    assert figures.deadline_misses == 15
    indices = [item.frame.index for item in sink.items]
    assert indices == sorted(indices)


def test_old_frames_are_left_out(artifact: Path) -> None:
    slowed(artifact, 30)
    spec = PipelineSpec(model=(str(artifact),), seconds=1.2, max_age_ms=4, policy="every")
    session = run(spec, Pictures(10_000, live=True, period_s=0.002), Collect())
    assert session.figures().stale > 3
    assert "1.2 s, as asked" in session.figures().ended


def test_a_sink_that_hangs_does_not_hold_the_loop(artifact: Path) -> None:
    class Hang(Collect):
        def write(self, item: FrameResult) -> None:
            release.wait(30)

    release = threading.Event()
    good = Collect()
    started_s = time.monotonic()
    session = run(PipelineSpec(model=(str(artifact),)), Pictures(80), Hang(), good)
    assert time.monotonic() - started_s < 12
    release.set()
    assert len(good.items) == 80
    hung = session.figures().sinks[0]
    assert hung.dropped > 50
    assert any(event.kind == "sink hangs" for event in session.figures().events)


def test_a_sink_that_raises_is_counted_and_switched_off(artifact: Path) -> None:
    class Full(Collect):
        def write(self, item: FrameResult) -> None:
            raise OSError(28, "No space left on device")

    session = run(PipelineSpec(model=(str(artifact),)), Pictures(50), Full())
    figures = session.figures().sinks[0]
    assert figures.failed == 20
    assert figures.dropped == 30
    assert "No space left" in figures.error
    assert session.error is None


def test_an_engine_that_fails_now_and_then(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv.backends.null import NullEngine

    whole, calls = NullEngine.run, iter(range(10_000))

    def sometimes(self: NullEngine, arrays: list[np.ndarray]) -> list[np.ndarray]:
        if next(calls) % 3 == 2:  # not in the two runs of the warm-up
            raise ToolchainError("the accelerator hiccuped")
        return whole(self, arrays)

    monkeypatch.setattr(NullEngine, "run", sometimes)
    sink = Collect()
    session = run(PipelineSpec(model=(str(artifact),)), Pictures(60), sink)
    assert session.error is None
    assert session.figures().failed >= 18
    assert session.figures().frames == 60 - session.figures().failed == len(sink.items)


def test_an_engine_that_fails_always_ends_the_loop(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv.backends.null import NullEngine

    whole, calls = NullEngine.run, iter(range(10_000))

    def broken(self: NullEngine, arrays: list[np.ndarray]) -> list[np.ndarray]:
        if next(calls) >= 2:
            raise ToolchainError("the accelerator is gone")
        return whole(self, arrays)

    monkeypatch.setattr(NullEngine, "run", broken)
    session = run(PipelineSpec(model=(str(artifact),)), Pictures(500), Collect())
    assert isinstance(session.error, EdgecvError)
    assert f"{MAX_FAILURES_IN_A_ROW} frames in a row failed" in str(session.error)
    assert session.report().outcome == "fail"


def test_stop_ends_soon_and_gives_everything_back(artifact: Path) -> None:
    before = threading.active_count()
    slowed(artifact, 20)
    session = open_session(PipelineSpec(model=(str(artifact),)), source=lambda: Pictures(100_000))
    session.start()
    time.sleep(0.3)
    assert session.status().state == "running"
    assert session.status().fps > 5
    started_s = time.monotonic()
    session.stop("enough")
    session.close()
    session.close()
    assert time.monotonic() - started_s < 3
    assert session.status().state == "stopped"
    assert session.figures().ended == "enough"
    end_s = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end_s:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_detect_track_and_look_again(detector: Path, artifact: Path) -> None:
    sink = Collect()
    spec = PipelineSpec(
        detect=(str(detector),), track="sort", second=SecondStage(str(artifact), max_objects=1, margin=1.0)
    )
    run(spec, Pictures(12), sink)
    for item in sink.items:
        assert isinstance(item.result, Detections)
        assert item.result.track_ids is not None
        assert len(item.result.second) == len(item.result)
        assert sum(answer is not None for answer in item.result.second) <= 1
        json.dumps(item.to_dict())


def test_the_python_way(artifact: Path) -> None:
    import cv2

    folder = artifact.parent / "pictures"
    folder.mkdir()
    for index in range(5):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((20, 20, 3), index * 20, np.uint8))
    seen = [result.frame.index for result in edgecv.run(model=str(artifact), camera=str(folder))]
    assert seen == [0, 1, 2, 3, 4]
    for result in edgecv.run(model=str(artifact), camera=str(folder), options={"frames": 4}):
        assert result.result.best in (0, 1, 2)
        break  # leaving the loop stops the camera


def test_what_cannot_be_opened_leaves_nothing_open(artifact: Path, detector: Path) -> None:
    before = threading.active_count()
    with pytest.raises(UsageError, match="detect needs one for detection"):
        open_session(PipelineSpec(detect=(str(artifact),)), source=lambda: Pictures(3))
    with pytest.raises(UsageError, match="no tracker"):
        open_session(PipelineSpec(detect=(str(detector),), track="sorted"), source=lambda: Pictures(3))
    with pytest.raises(UsageError, match="no known kind"):
        open_session(PipelineSpec(model=(str(artifact),), sinks=("film=a",)), source=lambda: Pictures(3))
    second = SecondStage(str(artifact), classes=("cat",))
    with pytest.raises(UsageError, match="does not know"):
        open_session(PipelineSpec(detect=(str(detector),), second=second), source=lambda: Pictures(3))
    (artifact / "model.null").write_text("tampered")
    with pytest.raises(ArtifactError):
        open_session(PipelineSpec(model=(str(artifact),)), source=lambda: Pictures(3))
    end_s = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end_s:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_a_ladder_changes_models_between_frames(artifact: Path, tmp_path: Path) -> None:
    import shutil

    second = tmp_path / "smaller"
    shutil.copytree(artifact, second)
    sink = Collect()
    spec = PipelineSpec(model=(str(artifact), str(second)), frames=200)
    with open_session(spec, source=lambda: Pictures(200, period_s=0.002), sinks=[("c", sink, "every")]) as session:
        session.start()
        time.sleep(0.1)
        session.loop.change_level(1, "too hot")
        session.wait(10)
    used = session.figures().levels
    assert set(used) == {"colours", "smaller"}
    assert sum(used.values()) == 200
    assert any(event.kind == "level" and "too hot" in event.text for event in session.figures().events)
    levels = [item.facts["level"] for item in sink.items]
    assert levels == sorted(levels), "changed once, and back to none"


def test_opencv_leaves_the_cores_to_the_engine_and_gets_them_back(artifact: Path) -> None:
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        seen: list[int] = []
        with open_session(
            PipelineSpec(model=(str(artifact),)),
            source=lambda: Pictures(5),
            on_result=lambda _: seen.append(cv2.getNumThreads()),
        ) as session:
            session.start()
            assert session.wait(20)
        assert set(seen) == {1}
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
