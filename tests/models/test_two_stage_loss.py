"""A two-stage detector learns from labels by torchvision's own losses, in batches, and keeps its mode."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec, FamilySpec, Finetune
from edgecv.core.results import DetectionTruth
from edgecv.data.readers import open_reader
from edgecv.errors import DataError
from edgecv.models.outputs import TensorOutputs
from edgecv.models.reference_two_stage import small_rcnn, small_two_stage
from edgecv.models.two_stage import FixedShapes, TwoStage
from edgecv.models.two_stage_loss import is_two_stage, two_stage_loss
from edgecv.optimize.finetune import TrainSet, finetune
from edgecv.vision.scenes import LABELS as SCENE_LABELS

SIZE = (64, 96)
LABELS = ("warm", "cold", "green")
CONTRACT = InputContract(size=SIZE)
SPEC = FamilySpec("detection", LABELS, head="rcnn", score_threshold=0.01)


class Blocks:
    """Pictures with two blocks each: the channel that is bright is the class."""

    skipped: dict[str, str] = {}
    ids = tuple(str(index) for index in range(8))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng(index)
        image, boxes, classes = np.full((*SIZE, 3), 40, np.uint8), [], random.permutation(3)[:2]
        for side, kind in enumerate(classes):
            high, wide = random.integers(20, 40, 2)
            left, top = 48 * side + random.integers(0, 47 - wide), random.integers(0, 63 - high)
            image[top : top + high, left : left + wide, 2 - kind] = 250
            boxes.append((left, top, left + wide, top + high))
        return Sample(self.ids[index], image, DetectionTruth(np.array(boxes, np.float32), classes.astype(np.int64)))

    def sha256(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        return "blocks"


def network() -> Any:
    """torchvision's parts, which look at few anchors and proposals in training: a test has to be quick."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        few = {"rpn_pre_nms_top_n_train": 100, "rpn_post_nms_top_n_train": 50, "box_batch_size_per_image": 32}
        return TwoStage(small_rcnn("faster", num_classes=4, **few), size=SIZE, shapes=FixedShapes(64, 32, 8, 4))


def batch() -> tuple[Any, list[DetectionTruth]]:
    from edgecv.optimize.batches import make_batches

    inputs, truths = next(make_batches(Blocks(), CONTRACT, batch_size=4)(0))
    return torch.from_numpy(inputs), truths


def test_gradients_reach_both_stages_in_a_batch() -> None:
    module = network().train()
    module.rpn.eval()
    inputs, truths = batch()
    two_stage_loss(TensorOutputs(module), inputs, truths).backward()
    assert {name for name, value in module.named_parameters() if value.grad is None} == set()
    assert not module.rpn.training, "its mode is as it was"
    assert module.roi_heads.training


def test_evaluation_stays_evaluation() -> None:
    module = network().eval()
    before = {name: value.clone() for name, value in module.named_buffers() if "running" in name}
    inputs, truths = batch()
    with torch.no_grad():
        loss = two_stage_loss(module, inputs, truths)
    assert loss.isfinite()
    assert not module.rpn.training
    assert all(torch.equal(value, before[name]) for name, value in module.named_buffers() if name in before)
    assert loss.item() > 0


def test_pictures_without_objects_crowds_and_what_does_not_fit() -> None:
    module, (inputs, truths) = network().train(), batch()
    none = DetectionTruth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), size=SIZE)
    crowd = DetectionTruth(truths[0].boxes, truths[0].class_ids, np.ones(2, bool), size=SIZE)
    assert two_stage_loss(module, inputs, [none, crowd, *truths[2:]]).isfinite()
    with pytest.raises(DataError, match="is int; this network learns from boxes"):
        two_stage_loss(module, inputs[:1], [3])  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"classes \[7\]; the network knows 3"):
        two_stage_loss(module, inputs[:1], [DetectionTruth(truths[0].boxes[:1], np.array([7]), size=SIZE)])


def drawn(kind: Any) -> tuple[Any, Any, list[Any]]:
    """A small Mask or Keypoint R-CNN, and a batch of scenes as it learns from them."""
    from edgecv.optimize.batches import make_batches

    data = {"mask": "scenes-instances", "keypoint": "scenes-keypoints"}[kind]
    contract = InputContract(size=(96, 128))
    labels = ("person",) if kind == "keypoint" else tuple(SCENE_LABELS)
    reader = open_reader(DataSpec(data, split="train", limit=4), base=Path(), labels=labels)  # type: ignore[arg-type]
    inputs, truths = next(make_batches(reader, contract, batch_size=4)(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        few = {"rpn_pre_nms_top_n_train": 100, "rpn_post_nms_top_n_train": 50, "box_batch_size_per_image": 32}
        count = 2 if kind == "keypoint" else len(SCENE_LABELS) + 1
        made = small_rcnn(kind, num_classes=count, **few)
        network = TwoStage(made, size=contract.size, shapes=FixedShapes(64, 32, 8, 4))
    return network, torch.from_numpy(inputs), truths


@pytest.mark.parametrize("kind", ["mask", "keypoint"])
def test_masks_and_keypoints_are_learned_too(kind: str) -> None:
    module, inputs, truths = drawn(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        two_stage_loss(TensorOutputs(module.train()), inputs, truths).backward()
        assert {name for name, value in module.named_parameters() if value.grad is None} == set()
        optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
        losses = []
        for _ in range(15):
            loss = two_stage_loss(module, inputs, truths)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.75 * losses[0]
    part = {"mask": "boxes with masks", "keypoint": "persons with keypoints"}[kind]
    boxes = DetectionTruth(np.zeros((1, 4), np.float32), np.zeros(1, np.int64), size=(96, 128))
    with pytest.raises(DataError, match=f"is DetectionTruth; this network learns from {part}"):
        two_stage_loss(module, inputs[:1], [boxes])


def test_nobody_flat_boxes_and_other_keypoints() -> None:
    module, inputs, truths = drawn("keypoint")
    flat = dataclasses.replace(truths[0], boxes=truths[0].boxes * np.array([1, 1, 0, 1], np.float32))
    assert two_stage_loss(module.train(), inputs[:1], [flat]).isfinite()
    fewer = dataclasses.replace(truths[0], keypoints=truths[0].keypoints[:, :5], mirror=())
    with pytest.raises(DataError, match="a truth has 5 keypoints; the network knows 17"):
        two_stage_loss(module, inputs[:1], [fewer])


def test_which_networks_have_such_losses() -> None:
    assert is_two_stage(network())
    assert is_two_stage(TensorOutputs(small_two_stage(num_classes=4, kind="mask")))
    assert not is_two_stage(torch.nn.Conv2d(3, 3, 1))
    assert not families.trains(SPEC), "nothing can be learned from the outputs of its graph"


@pytest.mark.build
def test_finetune_asks_the_parts() -> None:
    """In batches and with changed pictures; the score that picks the best epoch is minus the same loss."""
    step = Finetune(epochs=2, lr=1e-3, batch_size=3, augment="crop-flip", validation=0.3)
    result = finetune(network(), step=step, data=TrainSet(Blocks(), CONTRACT, SPEC))
    assert result.losses[1] < result.losses[0]
    assert result.score_name == "minus_loss"
    assert result.best_score is not None
    assert -10 < result.best_score < 0
    assert not result.module.training


@pytest.mark.build
@pytest.mark.parametrize("kind", ["mask", "keypoint"])
def test_finetune_asks_the_parts_of_masks_and_keypoints(kind: Any) -> None:
    """As above, with scenes as they are read, flipped and moved."""
    module, _, _ = drawn(kind)
    family = "instance" if kind == "mask" else "pose"
    labels = tuple(SCENE_LABELS) if kind == "mask" else ("person",)
    data = DataSpec("scenes-instances" if kind == "mask" else "scenes-keypoints", split="train", limit=8)
    reader = open_reader(data, base=Path(), labels=labels)
    step = Finetune(epochs=2, lr=1e-3, batch_size=3, augment="crop-flip", validation=0.25)
    found = TrainSet(reader, InputContract(size=(96, 128)), FamilySpec(family, labels, head="rois"))
    result = finetune(module, step=step, data=found)
    assert result.losses[1] < result.losses[0]
    assert result.score_name == "minus_loss"


@pytest.mark.build
def test_it_learns_a_few_pictures_by_heart() -> None:
    pytest.importorskip("faster_coco_eval")
    module, (inputs, truths) = network(), batch()

    def share() -> float:
        metric = families.detection.metric(SPEC, "ap50")
        for picture, truth in zip(inputs, truths, strict=True):
            with torch.no_grad():
                outputs = [item.numpy() for item in module.eval()(picture[None])]
            metric.update(families.detection.decode(outputs, SPEC, CONTRACT), truth)
        return metric.compute().value

    before, steps = share(), 100
    optimizer = torch.optim.AdamW(module.train().parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(steps):
            loss = two_stage_loss(module.train(), inputs, truths)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.4 * losses[0]
    assert share() > 0.9 > before + 0.5
