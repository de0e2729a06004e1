"""What detectors predict in training is what the heads decode: the same boxes, scores and cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.errors import ModelError
from edgecv.families.detection_cells import end2end_cells, fastest_cells, yolo_cells, yolox_cells
from edgecv.families.detection_rows import Cells
from edgecv.families.heads import HEADS

torch = pytest.importorskip("torch")

CONTRACT = InputContract(size=(64, 96))
LABELS = ("a", "b", "c")
CELLS = 8 * 12 + 4 * 6 + 2 * 3
Read = Callable[..., Cells]


def spec_of(head: str, **options: Any) -> FamilySpec:
    multi = {} if head == "yolo-end2end" else {"multi_label": True}
    return FamilySpec("detection", LABELS, head=head, score_threshold=0.0, options={**multi, **options})


def noise(*shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


def scored(boxes: np.ndarray, *, axis: int) -> np.ndarray:
    """``boxes`` with probabilities in everything behind the first four along ``axis``."""
    parts = np.split(boxes, [4], axis=axis)
    return np.concatenate([parts[0], np.abs(parts[1])], axis=axis)


def yolox() -> list[np.ndarray]:
    return [scored(noise(1, CELLS, 8), axis=2)]


def raw_maps() -> list[np.ndarray]:
    return [noise(1, 4 * 5 + 3, high, wide) for high, wide in ((8, 12), (4, 6), (2, 3))]


def fastest() -> list[np.ndarray]:
    values = noise(1, 8, 4, 6)
    values[:, [0, 5, 6, 7]] = np.abs(values[:, [0, 5, 6, 7]])
    return [values]


CASES: dict[str, tuple[FamilySpec, Read, list[np.ndarray]]] = {
    "yolox": (spec_of("yolox"), yolox_cells, yolox()),
    "yolox decoded": (spec_of("yolox", decoded=True), yolox_cells, yolox()),
    "yolox other strides": (spec_of("yolox", strides=[16]), yolox_cells, [scored(noise(1, 24, 8), axis=2)]),
    "yolo": (spec_of("yolo"), yolo_cells, [scored(noise(1, 7, CELLS), axis=1)]),
    "yolo shares": (spec_of("yolo", normalized=True), yolo_cells, [scored(noise(1, 7, CELLS), axis=1)]),
    "yolo maps": (spec_of("yolo", reg_max=5), yolo_cells, raw_maps()),
    "yolo plain maps": (spec_of("yolo", reg_max=1), yolo_cells, [noise(1, 7, 8, 12), noise(1, 7, 4, 6)]),
    "yolo maps, channels last": (
        spec_of("yolo", reg_max=5),
        yolo_cells,
        [np.ascontiguousarray(item.transpose(0, 2, 3, 1)) for item in raw_maps()],
    ),
    "fastestdet": (spec_of("fastestdet"), fastest_cells, fastest()),
}


@pytest.mark.parametrize("name", CASES)
def test_training_sees_what_the_head_decodes(name: str) -> None:
    spec, read, outputs = CASES[name]
    wanted = HEADS[spec.head].decode(outputs, spec, CONTRACT)
    found = read([torch.from_numpy(item) for item in outputs], spec, CONTRACT.size)
    count = found.boxes.shape[1]
    assert len(wanted.scores) == 3 * count
    np.testing.assert_allclose(found.boxes[0].repeat_interleave(3, dim=0).numpy(), wanted.boxes, rtol=1e-4, atol=1e-3)
    scores = found.scores[0]
    if found.objectness is not None and spec.head == "fastestdet":
        scores = found.objectness[0][:, None] ** 0.6 * scores**0.4
    elif found.objectness is not None:
        scores = found.objectness[0][:, None] * scores
    np.testing.assert_allclose(scores.flatten().numpy(), wanted.scores, rtol=1e-4, atol=1e-5)
    assert found.centres is not None
    assert found.centres.shape == (count, 2)
    assert (found.centres.min(axis=0) > 0).all()
    assert (found.centres.max(axis=0) < [96, 64]).all()


def test_end_to_end_rows() -> None:
    values = noise(2, 5, 6, low=0.0)
    values[..., 5] = [[0, 1, 2, 1, 0]] * 2
    found, kinds = end2end_cells([torch.from_numpy(values)], spec_of("yolo-end2end", normalized=True), CONTRACT.size)
    np.testing.assert_allclose(found.boxes.numpy(), values[..., :4] * [96, 64, 96, 64], rtol=1e-6)
    np.testing.assert_array_equal(found.scores[..., 0].numpy(), values[..., 4])
    assert kinds.tolist() == [[0, 1, 2, 1, 0]] * 2


@pytest.mark.parametrize(
    ("count", "strides"),
    [(CELLS, (8, 16, 32)), (96 + 24, (8, 16)), (96, (8,)), (CELLS + 384, (4, 8, 16, 32)), (24 + 6 + 2, (16, 32, 64))],
)
def test_strides_follow_from_the_count(count: int, strides: tuple[int, ...]) -> None:
    found = yolo_cells([torch.zeros(1, 7, count)], spec_of("yolo"), CONTRACT.size)
    assert found.strides is not None
    assert tuple(dict.fromkeys(found.strides.tolist())) == strides


def test_decoded_cells_of_unknown_maps_have_no_place() -> None:
    """Enough to compare two networks; the losses, which need the places, refuse them."""
    assert yolo_cells([torch.zeros(1, 7, 100)], spec_of("yolo"), CONTRACT.size).centres is None
    assert yolox_cells([torch.zeros(1, 100, 8)], spec_of("yolox", decoded=True), CONTRACT.size).centres is None


def test_outputs_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match=r"100 boxes; .* 126 cells at strides \[8, 16, 32\]"):
        yolox_cells([torch.zeros(1, 100, 8)], spec_of("yolox"), CONTRACT.size)
    with pytest.raises(ModelError, match="8 values for each box are needed"):
        yolox_cells([torch.zeros(1, 100, 9)], spec_of("yolox"), CONTRACT.size)
    with pytest.raises(ModelError, match="head fastestdet needs"):
        fastest_cells([torch.zeros(1, 8, 24)], spec_of("fastestdet"), CONTRACT.size)
    with pytest.raises(ModelError, match="6 values"):
        end2end_cells([torch.zeros(1, 24, 7)], spec_of("yolo-end2end"), CONTRACT.size)
