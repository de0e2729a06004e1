"""Faster, Mask and Keypoint R-CNN of torchvision as one graph in fixed shapes, with the same names of weights.

torchvision's own forward keeps as many boxes as there happen to be, which no engine for edge devices takes. Here the
number of candidates, proposals and detections is fixed; what is suppressed stays as a row with score 0.

S. Ren et al., "Faster R-CNN", arXiv:1506.01497; K. He et al., "Mask R-CNN", arXiv:1703.06870.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.errors import ModelError
from edgecv.models.roi_align import pyramid_align
from edgecv.models.two_stage_boxes import clipped, decoded, overlap, survivors

__all__ = ["OPTION_NAMES", "FixedShapes", "TwoStage", "two_stage"]

_SMALLEST_SIDE = 1e-3
_SAME_CLASS = 0.5


@dataclass(frozen=True)
class FixedShapes:
    """How much of everything a two-stage network keeps; options of the model in a recipe.

    ``candidates``: best anchors of each level of the pyramid that become boxes; ``proposals``: how many of them the box
    head looks at; ``detections``: boxes that get a mask or keypoints; ``rounds`` of suppression
    (`edgecv.models.two_stage_boxes.survivors`), 0 for none among the proposals. ``norm_eps`` replaces what batch norms
    add to the variance: 0 for torchvision's ResNet-50 weights COCO_V1, which were trained without it.
    """

    candidates: int = 256
    proposals: int = 100
    detections: int = 20
    rounds: int = 4
    norm_eps: float | None = None


OPTION_NAMES = tuple(item.name for item in fields(FixedShapes))
"""What of a model's options is meant for `two_stage`; the rest goes to torchvision's constructor."""


def two_stage(network: nn.Module, *, size: tuple[int, int], options: Mapping[str, Any], source: str) -> nn.Module:
    """One of torchvision's two-stage networks in fixed shapes; any other ``network`` as it is.

    ``size`` is (height, width) of the input; ``options`` are those of `OPTION_NAMES` that the recipe gives.

    Raises:
        ModelError: an option has no fitting value, or is given for another kind of network.
    """
    from torchvision.models.detection.faster_rcnn import FasterRCNN

    if not isinstance(network, FasterRCNN):
        alien = [name for name in options if name != "norm_eps"]  # one-stage detectors know that one too
        if alien:
            raise ModelError(f"model.options {', '.join(alien)} are for two-stage networks; {source} is none of those")
        return network
    for name, value in options.items():
        _check(name, value)
    try:
        return TwoStage(network, size=size, shapes=FixedShapes(**options))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError(
            f"{source} does not take an input of {size[0]} x {size[1]}: {error}. Check model.input.size."
        ) from error


def _check(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "norm_eps":
        if value is not None and not (number and 0 <= value < 1):
            raise ModelError(f"model.options.norm_eps is {value!r}; allowed is a number from 0 to below 1, such as 0.0")
        return
    least = 0 if name == "rounds" else 1
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ModelError(f"model.options.{name} is {value!r}; allowed is a whole number of at least {least}")


class TwoStage(nn.Module):
    """One picture `(1, 3, H, W)`, normalised as the recipe says, to tensors of fixed shapes.

    Faster R-CNN: boxes `(1, K, 4 * C)`, one for each class without the background, and their probabilities
    `(1, K, C)`; K proposals. Mask and Keypoint R-CNN choose D detections: boxes `(1, D, 4)`, scores `(1, D)`, classes
    `(1, D)` (numbers of the labels as floats) and masks `(1, D, 28, 28)` (probabilities within the box), or boxes,
    scores and heatmaps `(1, D * keypoints, 56, 56)` (logits within the box). Boxes are x1, y1, x2, y2 in pixels of the
    input; rows without a box have score 0.
    """

    class_numbers: Tensor
    class_of_row: Tensor

    def __init__(self, network: Any, *, size: tuple[int, int], shapes: FixedShapes) -> None:
        """Take over the parts of torchvision's ``network`` for inputs of (height, width) ``size``."""
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = network.backbone, network.rpn, network.roi_heads
        self.size, self.shapes = size, shapes
        if shapes.norm_eps is not None:
            for part in self.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eps = shapes.norm_eps
        cells = self._find_cells()
        self._place_anchors(cells)
        self._count_classes()
        self._choose_levels(cells)

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        pyramid = self.backbone(picture)
        proposals, found = self.propose(list(pyramid.values()))
        levels = [pyramid[name] for name in self.pooled_names]
        boxes, scores = self.classify(levels, proposals, found)
        heads = self.roi_heads
        if not (heads.has_mask() or heads.has_keypoint()):
            return boxes.unsqueeze(0), scores.unsqueeze(0)
        chosen, chosen_scores, classes = self.choose(boxes, scores)
        if heads.has_mask():
            masks = self.draw_masks(levels, chosen, classes)
            return chosen.unsqueeze(0), chosen_scores.reshape(1, -1), classes.reshape(1, -1), masks.unsqueeze(0)
        pooled = self._pool(levels, chosen, heads.keypoint_roi_pool, self.shapes.detections)
        maps = heads.keypoint_predictor(heads.keypoint_head(pooled))
        side = 4 * int(heads.keypoint_roi_pool.output_size[0])  # doubled twice, by a convolution and by interpolation
        planes = maps.reshape(1, self.shapes.detections * heads.keypoint_predictor.out_channels, side, side)
        return chosen.unsqueeze(0), chosen_scores.reshape(1, -1), planes

    def propose(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Proposals `(K, 4)` in pixels, and 1 for each that is one, else 0, `(K, 1)`."""
        logits, deltas = self.rpn.head(features)
        boxes, scores = [], []
        for level, (logit, delta) in enumerate(zip(logits, deltas, strict=True)):
            made, score = self._candidates(level, logit, delta)
            boxes.append(made)
            scores.append(score)
        best, places = torch.topk(torch.cat(scores).reshape(-1), self.proposals)
        chosen = torch.index_select(torch.cat(boxes), 0, places)
        return chosen, torch.gt(best, 0.0).to(torch.float32).unsqueeze(1)

    def classify(self, levels: list[Tensor], proposals: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes `(K, 4 * C)` and scores `(K, C)` of all classes but the background."""
        heads = self.roi_heads
        vectors = heads.box_head(self._pool(levels, proposals, heads.box_roi_pool, self.proposals))
        predictor = heads.box_predictor
        shares = torch.softmax(predictor.cls_score(vectors), dim=1)[:, 1:]
        deltas = predictor.bbox_pred(vectors)[:, 4:]
        boxes = decoded(deltas, proposals, each=self.classes, weights=heads.box_coder.weights)
        return clipped(boxes, self.size, each=self.classes), shares * found

    def choose(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best detections after suppression in each class: boxes `(D, 4)`, scores and classes `(D, 1)`."""
        flat, classes = scores.reshape(-1), self.class_of_row
        some, places = torch.topk(flat, self.rivals)
        near = torch.index_select(boxes.reshape(-1, 4), 0, places)
        kind = torch.index_select(classes, 0, places)
        same = torch.lt((kind - kind.transpose(0, 1)).abs(), _SAME_CLASS).to(torch.float32)
        close = torch.gt(overlap(near), self.roi_heads.nms_thresh).to(torch.float32)
        kept = survivors(close * same, count=self.rivals, rounds=max(self.shapes.rounds, 1))
        best, order = torch.topk(some * kept.reshape(-1), self.shapes.detections)
        return torch.index_select(near, 0, order), best.unsqueeze(1), torch.index_select(kind, 0, order)

    def draw_masks(self, levels: list[Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        """Probabilities `(D, 28, 28)` that a cell of the box belongs to the object of its class."""
        heads = self.roi_heads
        pooled = self._pool(levels, boxes, heads.mask_roi_pool, self.shapes.detections)
        planes = heads.mask_predictor(heads.mask_head(pooled))
        chosen = torch.lt((classes - self.class_numbers).abs(), _SAME_CLASS).to(torch.float32)
        logits = (planes[:, 1:] * chosen.unsqueeze(2).unsqueeze(3)).sum(dim=1)
        return torch.sigmoid(logits)

    def _candidates(self, level: int, logit: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """The best boxes `(k, 4)` of a level, and how likely each shows an object `(k, 1)`: 0 if it is suppressed."""
        anchors, count = getattr(self, f"anchors_{level}"), self.candidates[level]
        high, wide = self.cells[level]
        total = len(anchors)
        best, places = torch.topk(logit.permute(0, 2, 3, 1).reshape(-1), count)
        moves = delta.reshape(total // (high * wide), 4, high, wide).permute(2, 3, 0, 1).reshape(total, 4)
        moves = torch.index_select(moves, 0, places)
        made = decoded(moves, torch.index_select(anchors, 0, places), each=1, weights=self.rpn.box_coder.weights)
        made = clipped(made, self.size, each=1)
        score = torch.sigmoid(best).unsqueeze(1)
        if self.rpn.score_thresh > 0:
            score = score * torch.ge(score, self.rpn.score_thresh).to(torch.float32)
        sides = made[:, 2:4] - made[:, 0:2]
        score = score * torch.ge(torch.minimum(sides[:, 0:1], sides[:, 1:2]), _SMALLEST_SIDE).to(torch.float32)
        if self.shapes.rounds:
            close = torch.gt(overlap(made), self.rpn.nms_thresh).to(torch.float32)
            score = score * survivors(close, count=count, rounds=self.shapes.rounds)
        return made, score

    def _pool(self, levels: list[Tensor], boxes: Tensor, pool: Any, count: int) -> Tensor:
        return pyramid_align(
            levels,
            boxes,
            count=count,
            sizes=self.pooled_cells,
            strides=self.pooled_strides,
            size=int(pool.output_size[0]),
            samples=int(pool.sampling_ratio),
        )

    def _find_cells(self) -> dict[str, tuple[int, int]]:
        """(Height, width) of each level's features."""
        was = self.training
        self.eval()
        with torch.no_grad():
            pyramid = self.backbone(torch.zeros(1, 3, *self.size))
        self.train(was)
        return {name: (int(level.shape[2]), int(level.shape[3])) for name, level in pyramid.items()}

    def _place_anchors(self, cells: Mapping[str, tuple[int, int]]) -> None:
        """torchvision's anchors for this size of input, as constants `(n, 4)` of each level."""
        from torchvision.models.detection.image_list import ImageList

        images = ImageList(torch.zeros(1, 3, *self.size), [self.size])
        anchors = self.rpn.anchor_generator(images, [torch.zeros(1, 1, *sides) for sides in cells.values()])[0]
        each = self.rpn.anchor_generator.num_anchors_per_location()
        self.cells = tuple(cells.values())
        counts = [many * high * wide for many, (high, wide) in zip(each, self.cells, strict=True)]
        self.candidates = tuple(min(self.shapes.candidates, count) for count in counts)
        for level, part in enumerate(anchors.split(counts)):
            self.register_buffer(f"anchors_{level}", part.clone(), persistent=False)
        self.proposals = min(self.shapes.proposals, sum(self.candidates))

    def _count_classes(self) -> None:
        heads = self.roi_heads
        self.classes = int(heads.box_predictor.cls_score.out_features) - 1
        numbers = torch.arange(self.classes, dtype=torch.float32)
        self.register_buffer("class_numbers", numbers.reshape(1, self.classes), persistent=False)
        self.register_buffer("class_of_row", numbers.repeat(self.proposals).reshape(-1, 1), persistent=False)
        self.rivals = min(4 * self.shapes.detections, self.proposals * self.classes)
        if (heads.has_mask() or heads.has_keypoint()) and self.rivals < self.shapes.detections:
            raise ModelError(
                f"model.options.detections is {self.shapes.detections}, and {self.proposals} proposals of "
                f"{self.classes} classes make only {self.rivals} boxes; set fewer detections or more proposals"
            )

    def _choose_levels(self, cells: Mapping[str, tuple[int, int]]) -> None:
        """Which levels boxes are pooled from: torchvision counts them by their strides, rounded to powers of two."""
        names = [name for name in cells if name in self.roi_heads.box_roi_pool.featmap_names]
        strides = [2 ** round(-math.log2(cells[name][0] / self.size[0])) for name in names]
        used = int(math.log2(strides[-1])) - int(math.log2(strides[0])) + 1
        self.pooled_names = tuple(names[:used])
        self.pooled_cells = tuple(cells[name] for name in self.pooled_names)
        self.pooled_strides = tuple(strides[:used])
