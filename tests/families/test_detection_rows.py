"""Outputs of detectors as cells: what the families' own decoders read, batched and differentiable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.errors import ModelError
from edgecv.families.detection_cells import CELL_HEADS
from edgecv.families.detection_rows import Cells, rows_of
from edgecv.families.heads import HEADS

torch = pytest.importorskip("torch")

LABELS = ("cat", "dog", "cow")
SIZE = 32
CONTRACT = InputContract(size=(SIZE, SIZE))
GRIDS = (4, 2, 1)
CELLS = sum(grid * grid for grid in GRIDS)
SMALL_SSD = {
    "feature_maps": [[2, 2], [1, 1]],
    "scales": [0.3, 0.6, 0.9],
    "aspect_ratios": [[2], []],
}


def shapes_of(head: str) -> tuple[list[tuple[int, ...]], dict[str, Any], FamilySpec]:
    """Output shapes for one picture, the options, and the family of a small detector."""
    classes, options, more = len(LABELS), {}, {}
    shapes: list[tuple[int, ...]] = [(1, CELLS, 5 + classes)]
    if head == "yolo-anchor":
        shapes = [(1, 3 * (5 + classes), grid, grid) for grid in GRIDS]
    elif head == "yolo":
        options = {"reg_max": 4}
        shapes = [(1, 16 + classes, grid, grid) for grid in GRIDS]
    elif head == "fastestdet":
        shapes = [(1, 5 + classes, 4, 4)]
    elif head == "ssd":
        options, more = SMALL_SSD, {"background": True}
        shapes = [(1, 18, 4), (1, 18, classes + 1)]
    elif head == "retinanet":
        options = {"strides": [8], "sizes": [[8]], "aspect_ratios": [1.0], "multi_label": False}
        shapes = [(1, 16, 4), (1, 16, classes)]
    elif head == "fcos":
        options = {"strides": [8], "multi_label": False}
        shapes = [(1, 16, 4), (1, 16, classes), (1, 16, 1)]
    elif head == "ultraface":
        shapes = [(1, CELLS, classes + 1), (1, CELLS, 4)]
    elif head == "detr":
        shapes = [(1, 7, classes + 1), (1, 7, 4)]
    elif head == "yunet":
        shapes = [(1, grid * grid, width) for width in (classes, 1, 4, 10) for grid in GRIDS]
    spec = FamilySpec("detection", LABELS, head=head, score_threshold=0.0, options=options, **more)
    return shapes, options, spec


def outputs_of(head: str, *, seed: int = 0) -> tuple[list[np.ndarray], FamilySpec]:
    """Random outputs of one picture: probabilities where the head has them, small offsets elsewhere."""
    shapes, _, spec = shapes_of(head)
    random = np.random.default_rng(seed)
    return [random.uniform(0.02, 0.98, shape).astype(np.float32) for shape in shapes], spec


def read(head: str, outputs: list[np.ndarray], spec: FamilySpec) -> Cells:
    return CELL_HEADS[head]([torch.from_numpy(output) for output in outputs], spec, CONTRACT.size)


@pytest.mark.parametrize("head", sorted(CELL_HEADS))
def test_scores_and_boxes_are_the_decoders(head: str) -> None:
    outputs, spec = outputs_of(head)
    cells = read(head, outputs, spec)
    found = HEADS[head].decode(outputs, spec, CONTRACT)
    assert cells.boxes.shape[:2] == cells.scores.shape[:2]
    best = cells.scores[0].max(dim=-1).values.numpy()
    if cells.objectness is not None:
        other = cells.objectness[0].numpy()
        powers = {"fastestdet": (0.4, 0.6), "yunet": (0.5, 0.5), "fcos": (0.5, 0.5)}.get(head, (1.0, 1.0))
        best = best ** powers[0] * other ** powers[1]
    np.testing.assert_allclose(found.scores, best, atol=1e-5)
    boxes = cells.boxes[0].numpy()
    cut = boxes.clip(0, SIZE) if head in ("retinanet", "fcos") else boxes  # torchvision cuts those at the edges
    np.testing.assert_allclose(found.boxes, cut, rtol=1e-4, atol=1e-3)
    if cells.points is not None:
        assert found.keypoints is not None
        np.testing.assert_allclose(found.keypoints[..., :2].reshape(len(boxes), -1), cells.points[0], atol=1e-3)


@pytest.mark.parametrize("head", sorted(CELL_HEADS))
def test_a_batch_is_its_pictures_and_gradients_reach_every_output(head: str) -> None:
    (one, spec), (other, _) = outputs_of(head), outputs_of(head, seed=1)
    both = [torch.from_numpy(np.concatenate(pair)).requires_grad_() for pair in zip(one, other, strict=True)]
    cells = CELL_HEADS[head](both, spec, CONTRACT.size)
    for index, single in enumerate((one, other)):
        expected = read(head, single, spec)
        assert torch.allclose(cells.scores[index], expected.scores[0], atol=1e-6)
        assert torch.allclose(cells.boxes[index], expected.boxes[0], atol=1e-6)
        assert torch.allclose(cells.confidence[index], expected.confidence[0], atol=1e-6)
    total = cells.confidence.sum() + (cells.boxes / SIZE).square().sum()
    total = total if cells.points is None else total + cells.points.sum()
    total.backward()
    assert all(float(output.grad.abs().sum()) > 0 for output in both)


def test_decoded_layouts_are_read_as_pixels() -> None:
    rows = torch.tensor([[[10.0, 20.0, 4.0, 8.0, 0.9, 0.1, 0.2, 0.3]]])
    for head, options in (("yolox", {"decoded": True}), ("yolo-anchor", {})):
        spec = FamilySpec("detection", LABELS, head=head, options=options)
        assert CELL_HEADS[head]([rows], spec, CONTRACT.size).boxes.tolist() == [[[8.0, 16.0, 12.0, 24.0]]]
    table = torch.tensor([[[10.0], [20.0], [4.0], [8.0], [0.1], [0.2], [0.3]]])
    cells = CELL_HEADS["yolo"]([table], FamilySpec("detection", LABELS, head="yolo"), CONTRACT.size)
    assert cells.boxes.tolist() == [[[8.0, 16.0, 12.0, 24.0]]]
    assert cells.objectness is None


def test_a_shape_that_does_not_fit_is_named() -> None:
    with pytest.raises(ModelError, match=r"\(1, 5, 9\); 8 values"):
        rows_of(torch.zeros(1, 5, 9), 8)
    with pytest.raises(ModelError, match="3 outputs"):
        CELL_HEADS["ultraface"](
            [torch.zeros(1, 2, 4)] * 3, FamilySpec("detection", ("a",), head="ultraface"), CONTRACT.size
        )
    with pytest.raises(ModelError, match=r"\(N, 16, 3\)"):
        CELL_HEADS["yunet"]([torch.zeros(1, 2, 4)], FamilySpec("detection", LABELS, head="yunet"), CONTRACT.size)


def test_heads_without_cells_of_their_own_are_the_sorted_ones() -> None:
    assert set(families.detection.HEAD_NAMES) - set(CELL_HEADS) == {"yolo-end2end", "ssd-tflite", "rcnn"}
