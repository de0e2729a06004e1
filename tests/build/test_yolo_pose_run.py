"""YOLO-pose from labels to int8: trained by its own loss, compiled, judged on whole pictures, and run in a loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgecv import cli
from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec, FamilySpec, Finetune
from edgecv.core.results import Poses
from edgecv.core.stream import FrameResult
from edgecv.data.readers import open_reader
from edgecv.models.reference_pose import yolo_pose
from edgecv.optimize.finetune import TrainSet, finetune
from edgecv.report.schema import Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec

RECIPE = """\
recipe: 1
name: people
model:
  source: python:edgecv.models.reference_pose:yolo_pose
  weights: people.safetensors
  input: {size: [128, 160], mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25], resize: stretch}
family: {kind: pose, head: yolo-pose, labels: [person], score_threshold: 0.3}
data:
  train: {kind: scenes-keypoints, split: train, limit: 40}
  eval: {kind: scenes-keypoints, split: train, limit: 20}
  calibration: {source: {kind: scenes-keypoints, split: test, limit: 16}, samples: 16, select: random}
steps:
  - prune: {ratio: 0.1, round_to: 1}
  - finetune: {epochs: 8, lr: 1.0e-3, batch_size: 8}
  - quantize: {method: ptq, scheme: portable}
targets: [host-onnxruntime, host-openvino, host-litert, iphone-15]
measure: {protocol: smoke}
"""


def learn(file: Path) -> None:
    """Weights that were trained on forty scenes by the family's own loss."""
    family = FamilySpec("pose", ("person",), head="yolo-pose", score_threshold=0.3)
    contract = InputContract(size=(128, 160), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    reader = open_reader(DataSpec("scenes-keypoints", split="train", limit=40), base=file.parent, labels=("person",))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = yolo_pose()
        step = Finetune(epochs=30, lr=4e-3, batch_size=8, validation=0.1)
        tuned = finetune(network, step=step, data=TrainSet(reader, contract, family))
    save_file(tuned.module.state_dict(), file)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The folder and the report of a finished run."""
    folder = tmp_path_factory.mktemp("people")
    learn(folder / "people.safetensors")
    (folder / "people.yaml").write_text(RECIPE)
    words = ["optimize", str(folder / "people.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    assert cli.main(words) == 0
    return folder, read_report(folder / "out")


@pytest.mark.build
@pytest.mark.xdist_group("people")
def test_boxes_and_keypoints_survive_int8_on_every_engine(people: tuple[Path, Report]) -> None:
    _, report = people
    figures = {(item.target, item.role): item.accuracy for item in report.artifacts}
    for target in ("host-onnxruntime", "host-openvino", "host-litert"):
        plain, small = figures[target, "float"], figures[target, "optimized"]
        assert plain is not None
        assert small is not None
        assert plain.value > 0.3, "it did not learn"
        assert small.value > plain.value - 0.1


@pytest.mark.build
@pytest.mark.xdist_group("people")
def test_it_is_cut_and_compiles_for_a_phone(people: tuple[Path, Report]) -> None:
    _, report = people
    cut = next(step.effect for step in report.steps if step.kind == "prune")
    assert float(cut["macs_after"]) < 0.95 * float(cut["macs_before"])
    assert [item.error for item in report.artifacts if item.target == "iphone-15"] == ["", ""]


@pytest.mark.build
@pytest.mark.xdist_group("people")
def test_the_camera_loop_shows_its_people(people: tuple[Path, Report]) -> None:
    folder, _ = people
    seen: list[FrameResult] = []
    spec = PipelineSpec(model=(str(folder / "out/host-litert"),), camera="synthetic:", policy="every", frames=6)
    with open_session(spec, on_result=seen.append) as session:
        session.start()
        assert session.wait(120)
    assert session.error is None
    assert len(seen) == 6
    assert all(isinstance(item.result, Poses) for item in seen)
    assert max(len(item.result) for item in seen) >= 1
