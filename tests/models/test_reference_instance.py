"""The reference network for instance segmentation: what it gives, and how good its weights are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.core.tensor import TensorSpec
from edgecv.data.readers import open_reader
from edgecv.vision.image import preprocess
from edgecv.vision.scenes import LABELS

torch = pytest.importorskip("torch")

from edgecv.models.reference_instance import yolo_seg  # noqa: E402


def test_rows_and_prototypes_at_any_size_and_batch() -> None:
    module = yolo_seg(num_classes=3, prototypes=5).eval()
    with torch.no_grad():
        rows, planes = module(torch.zeros(2, 3, 64, 96))
    assert rows.shape == (2, 4 + 3 + 5, 8 * 12)
    assert planes.shape == (2, 5, 32, 48)
    spec = FamilySpec("instance", ("a", "b", "c"), head="prototypes")
    outputs = [TensorSpec("rows", (1, 12, 96), "float32"), TensorSpec("planes", (1, 5, 32, 48), "float32")]
    assert families.get("instance").problems(spec, outputs) == []
    centres = rows[0, :2].reshape(2, 8, 12)
    shift = (centres[0, 0, 5] - centres[0, 0, 4]).item()
    assert shift == pytest.approx(8, abs=2), "cells are eight pixels apart"
    scores = rows[:, 4:7]
    assert 0 < float(scores.min()) <= float(scores.max()) < 0.2, "nothing is sure at the start"
    assert sum(item.numel() for item in yolo_seg().parameters()) == pytest.approx(92_000, rel=0.01)


def test_the_weights_find_the_masks_of_scenes(root: Path) -> None:
    from safetensors.torch import load_file

    file = root / "recipes/instance/scenes-yoloseg.safetensors"
    assert file.stat().st_size <= 200_000
    module = yolo_seg()
    module.load_state_dict(load_file(file))
    module.eval()
    contract = InputContract(size=(128, 160), resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    spec = FamilySpec("instance", LABELS, head="prototypes", score_threshold=0.01, iou_threshold=0.6)
    reader = open_reader(DataSpec("scenes-instances", split="test", limit=20), base=root, labels=LABELS)
    family = families.get("instance")
    metric = family.metric(spec, "mask_ap50")
    for index in range(len(reader)):
        sample = reader[index]
        with torch.no_grad():
            outputs = [item.numpy() for item in module(torch.from_numpy(preprocess(sample.image, contract)[None]))]
        metric.update(family.decode(outputs, spec, contract, picture=sample.image.shape[:2]), sample.truth)
    assert metric.compute().value > 0.8


def test_scenes_show_masks_of_what_can_be_seen(root: Path) -> None:
    spec = DataSpec("scenes-instances", split="test", limit=6)
    reader = open_reader(spec, base=root, labels=LABELS)
    boxes = open_reader(DataSpec("scenes-boxes", split="test", limit=6), base=root, labels=LABELS)
    for index in range(len(reader)):
        one, other = reader[index].truth, boxes[index].truth
        assert (~one.crowd).sum() == (~other.crowd).sum()
        masks = one.masks()
        assert masks.sum(axis=0).max() <= 1, "a pixel is of one object"
        assert (np.sort(one.class_ids[~one.crowd]) == np.sort(other.class_ids[~other.crowd])).all()
    assert reader.fingerprint() == open_reader(spec, base=root, labels=LABELS).fingerprint()
    assert reader.fingerprint() != boxes.fingerprint()
