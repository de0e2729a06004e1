"""The small detectors: layouts, sizes, export, that they learn, and the shipped weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec, FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.core.tensor import TensorSpec
from edgecv.data.readers import open_reader
from edgecv.families import detection
from edgecv.models.load import load_model
from edgecv.models.reference_detection import yolo11_end2end, yolo11_like, yolox_like
from edgecv.recipe.load import load_recipe
from edgecv.vision.image import preprocess

SIZE = (64, 96)
CONTRACT = InputContract(size=SIZE)
SMALL: dict[str, Any] = {"num_classes": 2, "widths": (8, 8, 8, 8, 8)}
NETS: dict[str, tuple[Any, str, tuple[int, ...]]] = {
    "yolo11": (lambda **more: yolo11_like(**SMALL, size=SIZE, **more), "yolo", (6, 126)),
    "plain sides": (lambda **more: yolo11_like(**SMALL, size=SIZE, reg_max=1, **more), "yolo", (6, 126)),
    "end2end": (lambda **more: yolo11_end2end(**SMALL, size=SIZE, **more), "yolo-end2end", (100, 6)),
    "yolox": (lambda **more: yolox_like(**SMALL, **more), "yolox", (126, 7)),
}


def spec_of(head: str, *, threshold: float = 0.3, **options: Any) -> FamilySpec:
    return FamilySpec("detection", ("a", "b"), head=head, score_threshold=threshold, options=options)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("act", ["relu", "silu"])
def test_outputs_are_what_the_head_reads(name: str, act: str) -> None:
    build, head, shape = NETS[name]
    torch.manual_seed(0)
    module = build(act=act).eval()
    with torch.no_grad():
        one, three = module(torch.zeros(1, 3, *SIZE)), module(torch.rand(3, 3, *SIZE))
    assert (one.shape, three.shape) == ((1, *shape), (3, *shape))
    assert detection.problems(spec_of(head), [TensorSpec("out", tuple(one.shape), "float32")]) == []
    found = detection.decode([three[:1].numpy()], spec_of(head, threshold=0.0), CONTRACT)
    assert len(found) >= 6, "one for each coarse cell at least"
    assert found.scores.max() < 0.2, "a new network sees nothing yet"


@pytest.mark.parametrize(("build", "count"), [(yolo11_like, 75_948), (yolo11_end2end, 75_948), (yolox_like, 61_939)])
def test_sizes(build: Callable[..., torch.nn.Module], count: int) -> None:
    assert sum(item.numel() for item in build(num_classes=4).parameters()) == count


def test_the_end_to_end_rows_are_those_of_the_same_weights() -> None:
    torch.manual_seed(0)
    # In training, batch norms give even a new network answers that differ from place to place.
    plain, picked = NETS["yolo11"][0]().train(), NETS["end2end"][0]().train()
    picked.load_state_dict(plain.state_dict())
    pictures = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        rows, best = plain(pictures)[0].T, picked(pictures)[0]
    order = rows[:, 4:].amax(dim=1).argsort(descending=True)[:100]
    wanted = rows[order]
    corners = torch.cat([wanted[:, :2] - wanted[:, 2:4] / 2, wanted[:, :2] + wanted[:, 2:4] / 2], dim=1)
    assert torch.allclose(best[:, :4], corners, atol=1e-3)
    assert torch.allclose(best[:, 4], wanted[:, 4:].amax(dim=1))
    assert best[:, 5].tolist() == wanted[:, 4:].argmax(dim=1).tolist()


def test_the_layers_that_make_the_answers_are_protected() -> None:
    names = detection.protected(NETS["yolo11"][0]())
    assert names == sorted(f"{kind}.{level}.2" for kind in ("boxes", "classes") for level in range(3))
    names = detection.protected(NETS["yolox"][0]())
    assert names == sorted(f"{kind}.{level}" for kind in ("boxes", "objects", "classes") for level in range(3))


@pytest.mark.parametrize("name", NETS)
def test_they_export(name: str) -> None:
    torch.export.export(NETS[name][0]().eval(), (torch.zeros(1, 3, *SIZE),))


@pytest.mark.parametrize("name", ["yolo11", "yolox"])
def test_every_layer_learns_from_boxes(name: str) -> None:
    """One bright block in each of four pictures: the loss falls, and no layer is cut off from it."""
    torch.manual_seed(0)
    build, head, _ = NETS[name]
    module = build()
    pictures, truths = torch.zeros(4, 3, *SIZE), []
    for index, (x, y) in enumerate([(8, 8), (56, 8), (8, 32), (48, 28)]):
        pictures[index, index % 3, y : y + 24, x : x + 32] = 2.0
        box = np.array([[x, y, x + 32, y + 24]], np.float32)
        truths.append(DetectionTruth(box, np.array([index % 2]), size=SIZE))
    optimizer, losses = torch.optim.AdamW(module.parameters(), lr=5e-3), []
    seen: set[str] = set()
    for _ in range(20):
        optimizer.zero_grad()
        loss = detection.loss(module(pictures), truths, spec_of(head), label_smoothing=0.0)
        loss.backward()
        seen |= {key for key, item in module.named_parameters() if item.grad is not None and item.grad.any()}
        optimizer.step()
        losses.append(loss.item())
    left_out = {key for key, _ in module.named_parameters()} - seen
    # Nothing here is as large as the boxes of the coarsest map are in the beginning.
    assert not [key for key in left_out if not key.startswith("boxes.2.")]
    assert min(losses[-5:]) < 0.95 * losses[0]


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"size is \[100, 96\]; height and width must be multiples of 32"):
        yolo11_like(size=(100, 96))
    with pytest.raises(ValueError, match=r"widths are \[8, 8\]; five multiples of 4"):
        yolox_like(widths=(8, 8))


@pytest.mark.build
def test_the_shipped_weights_find_things(root: Path) -> None:
    loaded = load_recipe(root / "recipes/detection/scenes-yolo.yaml")
    recipe = loaded.recipe
    module = load_model(recipe.model, family=recipe.family, base=loaded.base, cache=Path(), seed=0)
    reader = open_reader(DataSpec("scenes-boxes", split="test", limit=40), base=root, labels=recipe.family.labels)
    metric = detection.metric(recipe.family, "ap50")
    for index in range(len(reader)):
        sample = reader[index]
        with torch.no_grad():
            rows = module(torch.from_numpy(preprocess(sample.image, recipe.model.input)[None])).numpy()
        size = (sample.image.shape[0], sample.image.shape[1])
        metric.update(detection.decode([rows], recipe.family, recipe.model.input, picture=size), sample.truth)
    assert metric.compute().value > 0.8
