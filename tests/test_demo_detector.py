"""The demo's detector as it is shipped: small, clean, right on scenes that it was not trained on, on every engine."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv import backends, demo, track
from edgecv.core.artifact import read_manifest
from edgecv.core.results import Detections
from edgecv.families.detection_metric import matches
from edgecv.measure.clear import ClearMot
from edgecv.runtime.load import load_artifact
from edgecv.vision.boxes import iou
from edgecv.vision.scenes import LABELS, Scene, SceneFrame, SceneSpec

# Training draws its seeds from 1000 on.
SPEC = SceneSpec(size=(240, 320), objects=6, seed=77)
FRAMES = range(0, 1200, 10)


@pytest.fixture(scope="module")
def scene() -> list[SceneFrame]:
    frames = Scene(SPEC)
    return [frames.frame(index) for index in FRAMES]


@pytest.fixture(scope="module")
def answers(scene: list[SceneFrame]) -> dict[str, list[Detections]]:
    """What each engine that is installed says of the scene."""
    found = {}
    for engine in demo.ENGINES:
        if backends.get(engine).missing(to="run") is None:
            with load_artifact(demo.artifact(engine), threads=1) as model:
                found[engine] = [model.predict(frame.image) for frame in scene]
    return found


@pytest.fixture(params=demo.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    lacking = backends.get(name).missing(to="run")
    if lacking is not None:
        pytest.skip(lacking)
    return name


def test_the_artifacts_are_small() -> None:
    sizes = {
        name: sum(file.stat().st_size for file in demo.artifact(name).iterdir() if file.is_file())
        for name in demo.ENGINES
    }
    assert max(sizes.values()) <= 550_000  # with pictures that prove them
    assert sum(sizes.values()) <= 1_300_000


@pytest.mark.parametrize("name", demo.ENGINES)
def test_an_artifact_names_no_place_of_the_machine_that_made_it(name: str) -> None:
    for file in demo.artifact(name).iterdir():
        content = file.read_bytes()
        for word in (b"/tmp", b"/work", b"/home", b"/opt", b"/usr", b"/root", b"site-packages", b".py"):
            assert word not in content, f"{file.name} holds {word!r}"


@pytest.mark.parametrize("name", demo.ENGINES)
def test_the_manifests_say_the_same(name: str) -> None:
    manifest, first = read_manifest(demo.artifact(name)), read_manifest(demo.artifact(demo.ENGINES[0]))
    assert manifest.backend == name
    assert manifest.family == first.family
    assert manifest.contract == first.contract
    assert manifest.family.labels == LABELS
    assert len(manifest.outputs) == 1
    assert manifest.outputs[0].shape == first.outputs[0].shape


def test_it_finds_the_objects_of_an_unseen_scene(
    engine: str, answers: dict[str, list[Detections]], scene: list[SceneFrame]
) -> None:
    truths = right = answered = 0
    for found, frame in zip(answers[engine], scene, strict=True):
        partners = matches(found.boxes, found.class_ids, frame.boxes, frame.class_ids)
        hit = int((partners >= 0).sum())
        free = found.boxes[_unmatched(found, frame)]
        excused = int((iou(free, frame.ignored).max(axis=1) >= 0.3).sum()) if len(frame.ignored) and len(free) else 0
        truths, right, answered = truths + len(frame.boxes), right + hit, answered + len(found) - excused
    assert truths > 400
    assert right / truths >= 0.97
    assert right / answered >= 0.98


def _unmatched(found: Detections, frame: SceneFrame) -> list[int]:
    partners = matches(found.boxes, found.class_ids, frame.boxes, frame.class_ids)
    if len(partners) == len(found):
        return [int(row) for row in np.flatnonzero(partners < 0)]
    taken = set(partners[partners >= 0].tolist())
    return [row for row in range(len(found)) if row not in taken]


def test_the_engines_agree(answers: dict[str, list[Detections]]) -> None:
    """99 % of the boxes of one engine are those of the others within a pixel, with the same class."""
    if len(answers) < 2:
        pytest.skip("only one engine is installed")
    first, *others = answers
    for other in others:
        total = close = 0
        for one, two in zip(answers[first], answers[other], strict=True):
            total += max(len(one), len(two))
            if len(one) and len(two):
                away = np.abs(one.boxes[:, None] - two.boxes[None]).max(axis=2)
                away[one.class_ids[:, None] != two.class_ids[None]] = np.inf
                close += int((away.min(axis=1) <= 1.0).sum())
        assert total > 400
        assert close / total >= 0.99


@pytest.mark.parametrize("tracker", ["bytetrack", "sort", "ocsort"])
def test_a_tracker_follows_its_objects(tracker: str) -> None:
    engine = next((name for name in demo.ENGINES if backends.get(name).missing(to="run") is None), None)
    if engine is None:
        pytest.skip("no engine is installed")
    scene, score = Scene(SPEC), ClearMot()
    follow = track.make(tracker, fps=SPEC.fps)
    with load_artifact(demo.artifact(engine), threads=1) as model:
        for index in range(300):
            frame = scene.frame(index)
            score.update(
                follow.update(model.predict(frame.image), index / SPEC.fps), frame.boxes, frame.ids, frame.ignored
            )
    assert score.truths > 1000
    assert score.mota >= 0.95
