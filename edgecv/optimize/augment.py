"""Random changes of pictures in training, by torchvision's transforms: boxes, points and masks go with their picture.

What is drawn depends on the generator alone, so the same seed, epoch and sample always give the same picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from edgecv.core.contract import InputContract
from edgecv.core.protocols import JoinedTruth, MovedTruth
from edgecv.core.results import Shapes
from edgecv.core.steps import Augment
from edgecv.core.tensor import Array, FloatArray

__all__ = ["FlatMap", "Item", "Window", "changed", "mosaic", "recoloured", "truth_seen"]

Size = tuple[int, int]
_LEAST_SHARE = 0.3
"""The pictures of a mosaic meet at a point between this share of the sides and its counterpart."""
_MOSAIC_SHRINK = 0.5
"""Pictures of a mosaic are half as large as they would be alone."""


@dataclass(frozen=True)
class FlatMap:
    """A truth with a value for each pixel of the network's input, `(H, W)`; pixels from outside get ``fill``."""

    values: Array
    fill: float

    def joined(self, others: Sequence[Any]) -> FlatMap:
        """With the values of ``others`` wherever this one has none."""
        values = self.values
        for other in others:
            values = np.where(values == self.fill, other.values, values)
        return replace(self, values=values)


Item = tuple[FloatArray, Any]
"""A prepared picture `(C, H, W)` and its truth."""


@dataclass(frozen=True)
class Window:
    """The part of a picture, in whole pixels and perhaps beyond its edges, that becomes ``size`` (height, width)."""

    top: int
    left: int
    height: int
    width: int
    size: Size
    mirrored: bool

    @property
    def plain(self) -> bool:
        """Whether nothing is scaled."""
        return self.size == (self.height, self.width)

    def of(self, tensor: Any, *, fill: float = 0.0) -> Any:
        """``tensor`` (a picture, boxes or a mask) seen through this window."""
        edges = [0, 0, 0, 0]
        if fill != 0:  # cropping itself fills with 0, at the price of one copy instead of two
            high, wide = functional.get_size(tensor)
            bottom, right = self.top + self.height, self.left + self.width
            edges = [max(0, -self.left), max(0, -self.top), max(0, right - wide), max(0, bottom - high)]
            tensor = functional.pad(tensor, edges, fill=fill)
        tensor = functional.crop(tensor, self.top + edges[1], self.left + edges[0], self.height, self.width)
        if not self.plain:
            exact = isinstance(tensor, tv_tensors.Mask)
            how = v2.InterpolationMode.NEAREST_EXACT if exact else v2.InterpolationMode.BILINEAR
            tensor = functional.resize(tensor, list(self.size), interpolation=how, antialias=not exact)
        return functional.horizontal_flip(tensor) if self.mirrored else tensor


def changed(item: Item, augment: Augment, contract: InputContract, random: np.random.Generator) -> Item:
    """``item`` recoloured, moved, scaled and mirrored as ``augment`` allows and ``random`` draws."""
    picture, truth = item
    window = _drawn(picture.shape[1:], augment, random)
    if augment.color > 0:
        picture = recoloured(picture, contract, share=augment.color, random=random)
    return _seen((picture, truth), window)


def mosaic(
    own: Item, other: Callable[[], Item], augment: Augment, contract: InputContract, random: np.random.Generator
) -> Item:
    """Four pictures in one (A. Bochkovskiy et al., "YOLOv4", arXiv:2004.10934): ``own`` and three from ``other``.

    Each is half as large as it would be alone, scaled and mirrored on its own as ``augment`` allows; where
    they meet is drawn as well. Truths are cut at the edges of their part.
    """
    high, wide = (int(side) for side in own[0].shape[1:])
    meet = [round(side * random.uniform(_LEAST_SHARE, 1 - _LEAST_SHARE)) for side in (high, wide)]
    corners = [(0, 0), (0, meet[1]), (meet[0], 0), (meet[0], meet[1])]
    ends = [(meet[0], meet[1]), (meet[0], wide), (high, meet[1]), (high, wide)]
    items = [own, other(), other(), other()]
    total: FloatArray = np.zeros_like(own[0])
    truths = []
    for index, place in enumerate(random.permutation(4)):
        (top, left), (bottom, right) = corners[place], ends[place]
        size = (bottom - top, right - left)
        part = _seen(items[index], _drawn_part((high, wide), size, augment, random))
        total[:, top:bottom, left:right] = part[0]
        truths.append(_set(part[1], (-top, -left), size, (high, wide)))
    if augment.color > 0:
        total = recoloured(total, contract, share=augment.color, random=random)
    first = truths[0]
    return total, first.joined(truths[1:]) if isinstance(first, JoinedTruth) else first


def recoloured(
    picture: FloatArray, contract: InputContract, *, share: float, random: np.random.Generator
) -> FloatArray:
    """A prepared ``picture`` `(C, H, W)` with brightness, contrast and saturation up to ``share`` more or less.

    Clips `(T * C, H, W)` change as a whole.
    """
    factors = random.uniform(1 - share, 1 + share, 3)
    low, high = contract.range
    channels = contract.channels
    mean = torch.tensor(contract.mean, dtype=torch.float32).reshape(-1, 1, 1)
    std = torch.tensor(contract.std, dtype=torch.float32).reshape(-1, 1, 1)
    frames = torch.from_numpy(picture).unflatten(0, (-1, channels))
    shares = (frames * std + mean - low) / (high - low)
    turned = contract.color == "bgr"
    shares = shares.flip(1) if turned else shares
    shares = functional.adjust_brightness(shares, float(factors[0]))
    shares = functional.adjust_contrast(shares, float(factors[1]))
    if channels == 3:
        shares = functional.adjust_saturation(shares, float(factors[2]))
    shares = shares.flip(1) if turned else shares
    made: FloatArray = ((shares * (high - low) + low - mean) / std).flatten(0, 1).numpy()
    return made


def _drawn(size: Sequence[int], augment: Augment, random: np.random.Generator) -> Window:
    """A window that moves the picture by up to ``augment.shift`` of its sides and scales it."""
    high, wide = (int(side) for side in size)
    height, width = _zoomed((high, wide), augment, random)
    places = []
    for side, length in ((high, height), (wide, width)):
        # At least a pixel, so that small pictures move as well.
        reach = max(1, int(augment.shift * length)) if augment.shift > 0 else 0
        places.append((side - length) // 2 + int(random.integers(2 * reach + 1)) - reach)
    mirrored = bool(augment.flip and random.random() < 0.5)
    return Window(places[0], places[1], height, width, (high, wide), mirrored)


def _drawn_part(size: Size, part: Size, augment: Augment, random: np.random.Generator) -> Window:
    """A window for a part of a mosaic: somewhere in a picture of ``size``, half as large as alone."""
    whole = round(part[0] / _MOSAIC_SHRINK), round(part[1] / _MOSAIC_SHRINK)
    height, width = _zoomed(whole, augment, random)
    places = []
    for side, length in zip(size, (height, width), strict=True):
        room = side - length
        places.append(int(random.integers(min(0, room), max(0, room) + 1)))
    mirrored = bool(augment.flip and random.random() < 0.5)
    return Window(places[0], places[1], height, width, part, mirrored)


def _zoomed(size: Size, augment: Augment, random: np.random.Generator) -> Size:
    """How much of a picture fills ``size``, scaled as drawn."""
    low, high = augment.scale
    zoom = float(random.uniform(low, high)) if high > low else low
    return max(1, round(size[0] / zoom)), max(1, round(size[1] / zoom))


def _seen(item: Item, window: Window) -> Item:
    """A picture and its truth through ``window``."""
    picture, truth = item
    if window == Window(0, 0, *window.size, window.size, False) and picture.shape[1:] == window.size:
        return item
    seen = window.of(tv_tensors.Image(torch.from_numpy(picture)))
    made: FloatArray = np.ascontiguousarray(seen.numpy())
    return made, truth_seen(truth, picture.shape[1:], window)


def truth_seen(truth: Any, canvas: Sequence[int], window: Window) -> Any:
    """A truth in pixels of a picture of (height, width) ``canvas`` as it is in what ``window`` shows."""
    if isinstance(truth, FlatMap):
        seen = window.of(tv_tensors.Mask(torch.from_numpy(truth.values)[None]), fill=truth.fill)
        return replace(truth, values=np.ascontiguousarray(seen[0].numpy()))
    if not isinstance(truth, MovedTruth):
        return truth
    shapes = truth.shapes()
    boxes, points = (_boxes_seen(rows, canvas, window) for rows in (shapes.boxes, np.tile(shapes.points, 2)))
    planes = shapes.planes
    if planes is not None:
        planes = window.of(tv_tensors.Mask(torch.from_numpy(planes))).numpy()
    return truth.with_shapes(Shapes(boxes, points[:, :2], planes), size=window.size, mirrored=window.mirrored)


def _boxes_seen(boxes: FloatArray, canvas: Sequence[int], window: Window) -> FloatArray:
    """Rows x1, y1, x2, y2; a point is a box without sides, since torchvision mirrors its own points by pixel numbers.

    Nothing is cut at the edges: the truths know better what is left of an object.
    """
    if not len(boxes):
        return boxes
    given = tv_tensors.BoundingBoxes(
        torch.from_numpy(np.asarray(boxes, dtype=np.float32)),
        format="XYXY",
        canvas_size=(int(canvas[0]), int(canvas[1])),
        clamping_mode=None,
    )
    seen: FloatArray = window.of(given).numpy()
    return seen


def _set(truth: Any, corner: Size, size: Size, whole: Size) -> Any:
    """The truth of a part of ``size`` in a whole picture, whose corner is at ``corner`` as the part sees it."""
    return truth_seen(truth, size, Window(corner[0], corner[1], whole[0], whole[1], whole, False))
