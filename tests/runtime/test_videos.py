"""Detect, track and a second stage on real videos, with published weights, on every engine of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecv import backends
from edgecv.core.contract import InputContract
from edgecv.core.protocols import CompileSource
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections
from edgecv.core.stream import FrameResult
from edgecv.core.target import Target
from edgecv.errors import UsageError
from edgecv.runtime.importer import import_model
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec, SecondStage

pytestmark = pytest.mark.build

ENGINES = ("onnxruntime", "openvino", "litert")
VIDEOS = {
    "bottle-detection.mp4": 40,
    "one-by-one-person-detection.mp4": 90,
    "people-corridor.mp4": 40,
    "street-night-8frames.mp4": 8,
    "two-persons-indoor.mp4": 30,
}
FASTESTDET = InputContract(size=(352, 352), color="bgr", resize="stretch", interpolation="area")


@pytest.fixture(scope="module")
def detectors(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The FastestDet file as an artifact of each engine: by way of torch for LiteRT, which reads no ONNX."""
    pytest.importorskip("torch")
    import torch

    from edgecv.models.onnx_import import import_onnx
    from edgecv.optimize.export import export_program, save_program

    folder = tmp_path_factory.mktemp("fastestdet")
    file = shared_data / "models/fastestdet/FastestDet.onnx"
    labels = tuple((shared_data / "models/fastestdet/coco.names").read_text(encoding="utf-8").split("\n")[:80])
    family = FamilySpec("detection", labels, head="fastestdet", score_threshold=0.4, max_detections=50)
    program = export_program(import_onnx(file, FASTESTDET), torch.zeros(1, 3, 352, 352))
    save_program(program, folder / "program.pt2")
    made = {}
    for name in ENGINES:
        backend = backends.get(name)
        if backend.missing(to="build") is not None:
            continue
        out = folder / f"compiled-{name}"
        out.mkdir()
        target = Target(1, name, name, name, "host", ("fp32",), (), threads=1)
        source = CompileSource("fp32", file, folder / "program.pt2")
        compiled = backend.compile(source, target=target, out=out, log=folder / "log.txt")
        made[name] = import_model(
            out / compiled.model, out=folder / name, name="fastestdet", family=family, contract=FASTESTDET
        )
    return made


def follow(spec: PipelineSpec) -> list[FrameResult]:
    seen: list[FrameResult] = []
    with open_session(spec, on_result=seen.append) as session:
        session.start()
        assert session.wait(300)
    assert session.error is None
    assert session.figures().failed == 0
    return seen


def apart(one: Detections, other: Detections) -> np.ndarray:
    """For each object of ``one``, how far the nearest object of its class in ``other`` is: largest edge, in pixels."""
    if not len(other):
        return np.full(len(one), np.inf)
    distance = np.abs(one.boxes[:, None] - other.boxes[None]).max(axis=2)
    distance[one.class_ids[:, None] != other.class_ids[None]] = np.inf
    return distance.min(axis=1)


@pytest.mark.parametrize("video", list(VIDEOS))
@pytest.mark.xdist_group("videos")
def test_the_engines_see_the_same(shared_data: Path, detectors: dict[str, Path], video: str) -> None:
    """Boxes within one pixel for 99 % of what each finds, and the same tracks."""
    runs = {
        name: follow(
            PipelineSpec(
                camera=str(shared_data / "videos" / video),
                detect=(str(folder),),
                track="bytetrack",
                frames=VIDEOS[video],
                threads=1,
            )
        )
        for name, folder in detectors.items()
    }
    reference = runs.pop("onnxruntime")
    assert len(reference) == VIDEOS[video]
    assert sum(len(item.result) for item in reference) >= 8, "there is something to see in each video"
    for name, run in runs.items():
        far = [
            apart(*pair)
            for mine, theirs in zip(reference, run, strict=True)
            for pair in ((mine.result, theirs.result), (theirs.result, mine.result))
        ]
        distances = np.concatenate(far)
        assert (distances <= 1.0).mean() >= 0.99, f"{name}: {(distances > 1).sum()} of {distances.size} apart"
        ids = [{int(track) for item in items for track in item.result.track_ids} for items in (reference, run)]
        assert abs(len(ids[0]) - len(ids[1])) <= 1


@pytest.mark.xdist_group("videos")
def test_people_have_a_pose_and_keep_their_looks(
    shared_data: Path, detectors: dict[str, Path], tmp_path: Path, movenet: Callable[[Path], Path]
) -> None:
    """FastestDet, OSNet for the tracker, MoveNet on each person: two persons in a room stay two persons."""
    osnet = import_model(
        shared_data / "models/osnet_x0_25_msmt17/osnet_x0_25_msmt17.onnx",
        out=tmp_path / "osnet",
        name="osnet",
        family=FamilySpec("embedding", ("person",)),
        contract=InputContract(size=(256, 128), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    )
    spec = PipelineSpec(
        camera=str(shared_data / "videos/two-persons-indoor.mp4"),
        detect=(str(detectors["onnxruntime"]),),
        track="botsort",
        reid=str(osnet),
        second=SecondStage(str(movenet(tmp_path / "movenet")), classes=("person",), every=2),
        frames=40,
        threads=1,
    )
    seen = follow(spec)
    assert {"reid", "track", "second"} <= set(seen[0].trace.stages_ms)
    by_track: dict[int, list[np.ndarray]] = {}
    poses = []
    for item in seen:
        for row in range(len(item.result)):
            if item.result.boxes[row, 3] - item.result.boxes[row, 1] > 300:  # the picture on the wall is smaller
                by_track.setdefault(int(item.result.track_ids[row]), []).append(item.result.embeddings[row])
            if item.result.second[row] is not None:
                poses.append((item.result.boxes[row], item.result.second[row]))
    long = [np.stack(vectors) for vectors in by_track.values() if len(vectors) >= 15]
    assert len(long) == 2
    same = [float((vectors[:-1] * vectors[1:]).sum(axis=1).mean()) for vectors in long]
    other = float((long[0] @ long[1].T).mean())
    assert min(same) > 0.85
    assert min(same) > other + 0.1
    inside = [
        ((pose.keypoints[0, :, :2] >= box[:2] - 40) & (pose.keypoints[0, :, :2] <= box[2:] + 40)).all(axis=1).mean()
        for box, pose in poses
    ]
    assert len(poses) >= 40
    assert np.mean(inside) > 0.8, "most keypoints lie in the person's box"


@pytest.fixture
def movenet(shared_data: Path) -> Callable[[Path], Path]:
    pytest.importorskip("ai_edge_litert")

    def make(out: Path) -> Path:
        (file,) = (shared_data / "models/movenet_lightning_ptq").glob("*.tflite")
        family = FamilySpec("pose", ("person",), head="movenet")
        contract = InputContract(size=(192, 192), resize="letterbox", range=(0.0, 255.0))
        return import_model(file, out=out, name="movenet", family=family, contract=contract)

    return make


@pytest.mark.xdist_group("videos")
def test_reid_is_refused_where_it_does_nothing(detectors: dict[str, Path]) -> None:
    folder = str(detectors["onnxruntime"])
    with pytest.raises(UsageError, match="botsort"):
        PipelineSpec(detect=(folder,), track="sort", reid=folder).check()
    with pytest.raises(UsageError, match="needs one for embedding"):
        open_session(PipelineSpec(detect=(folder,), track="botsort", reid=folder, camera="synthetic"))
