"""The true objects of one picture with their masks, and where these go when the picture is resized, moved or mirrored.

Masks are kept in COCO's compressed run-length code (T.-Y. Lin et al., arXiv:1405.0312), some hundred bytes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.masks import ObjectMask
from edgecv.core.results import DetectionTruth, Shapes
from edgecv.errors import ToolchainError
from edgecv.vision.image import geometry
from edgecv.vision.maps import fit_map

Floats = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class InstanceTruth:
    """The true objects of a picture of ``size`` (height, width).

    ``codes`` are their masks in COCO's compressed run-length code, ``boxes`` `(N, 4)` float32 x1, y1, x2, y2,
    ``class_ids`` `(N,)` int64, ``area`` `(N,)` float32 the pixels of each mask; ``crowd`` `(N,)` bool marks masks of
    many objects, which count neither as found nor as missed.
    """

    codes: tuple[bytes, ...]
    boxes: Floats
    class_ids: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    area: Floats
    size: tuple[int, int]

    def __post_init__(self) -> None:
        count = len(self.codes)
        shapes = (self.boxes.shape, self.class_ids.shape, self.crowd.shape, self.area.shape)
        if shapes != ((count, 4), (count,), (count,), (count,)):
            raise ValueError(f"boxes, class_ids, crowd and area have shapes {shapes} for {count} masks")

    def __len__(self) -> int:
        return len(self.codes)

    @staticmethod
    def of(
        masks: npt.NDArray[Any], class_ids: npt.NDArray[Any], crowd: npt.NDArray[Any] | None = None
    ) -> InstanceTruth:
        """The truth of ``masks`` `(N, H, W)` (not 0 where the object is), each in the smallest box that holds it.

        Objects without a pixel are left out. ``class_ids`` `(N,)`; ``crowd`` `(N,)`, None for none.

        Raises:
            ToolchainError: faster-coco-eval is not installed.
        """
        seen = np.flatnonzero(masks.any(axis=(1, 2)))
        boxes = np.array([mask_box(masks[row]) for row in seen], dtype=np.float32).reshape(-1, 4)
        every = np.zeros(len(masks), dtype=bool) if crowd is None else np.asarray(crowd, dtype=bool)
        return InstanceTruth(
            tuple(encoded(masks[row]) for row in seen),
            boxes,
            np.asarray(class_ids, dtype=np.int64)[seen],
            every[seen],
            np.count_nonzero(masks[seen], axis=(1, 2)).astype(np.float32),
            (masks.shape[1], masks.shape[2]),
        )

    def masks(self) -> Masks:
        """The masks as planes, `(N, H, W)`.

        Raises:
            ToolchainError: faster-coco-eval is not installed.
        """
        planes = np.zeros((len(self), *self.size), dtype=bool)
        for plane, code in zip(planes, self.codes, strict=True):
            plane[:] = mask_codec().decode({"size": list(self.size), "counts": code}) != 0
        return planes

    def rles(self) -> list[dict[str, Any]]:
        """The masks as faster-coco-eval takes them."""
        return [{"size": list(self.size), "counts": code} for code in self.codes]

    def as_boxes(self) -> DetectionTruth:
        """The objects without their masks."""
        return DetectionTruth(self.boxes, self.class_ids, self.crowd, self.area, self.size)

    def to_network(self, contract: InputContract) -> InstanceTruth:
        """The same in pixels of the network's input; objects that are cut off there are gone."""
        place = geometry(self.size, contract)
        planes = [fit_map(mask.view(np.uint8), contract, fill=0) for mask in self.masks()]
        boxes = place.to_network(self.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
        return self._placed(np.array(planes, dtype=np.uint8).reshape(-1, *contract.size), boxes)

    def shapes(self) -> Shapes:
        """Boxes and masks, to be moved with their picture."""
        return Shapes(self.boxes, np.zeros((0, 2), dtype=np.float32), self.masks().view(np.uint8))

    def with_shapes(self, shapes: Shapes, *, size: tuple[int, int], mirrored: bool) -> InstanceTruth:
        """The same with other boxes and masks in a picture of ``size``; objects that are cut off there are gone."""
        planes = np.zeros((0, *size), dtype=np.uint8) if shapes.planes is None else shapes.planes
        return self._placed(planes.reshape(-1, *size), shapes.boxes)

    def joined(self, others: Sequence[InstanceTruth]) -> InstanceTruth:
        """The objects of this and of ``others``, all in pixels of the same picture."""
        every = (self, *others)
        return InstanceTruth(
            tuple(code for truth in every for code in truth.codes),
            np.concatenate([truth.boxes for truth in every]),
            np.concatenate([truth.class_ids for truth in every]),
            np.concatenate([truth.crowd for truth in every]),
            np.concatenate([truth.area for truth in every]),
            self.size,
        )

    def select(self, rows: npt.NDArray[Any]) -> InstanceTruth:
        """The objects of ``rows``, a mask `(N,)` bool or indices."""
        picked = np.arange(len(self))[rows]
        return replace(
            self,
            codes=tuple(self.codes[int(row)] for row in picked),
            boxes=self.boxes[picked],
            class_ids=self.class_ids[picked],
            crowd=self.crowd[picked],
            area=self.area[picked],
        )

    def _placed(self, planes: npt.NDArray[Any], boxes: npt.NDArray[Any]) -> InstanceTruth:
        """New masks `(N, H, W)` and boxes, which are cut at the edges; what shows no pixel any more is left out."""
        height, width = planes.shape[1:]
        left = np.flatnonzero(planes.any(axis=(1, 2)))
        return InstanceTruth(
            tuple(encoded(planes[row]) for row in left),
            boxes[left].clip(0, np.array([width, height, width, height])).astype(np.float32),
            self.class_ids[left],
            self.crowd[left],
            np.count_nonzero(planes[left], axis=(1, 2)).astype(np.float32),
            (int(height), int(width)),
        )


def mask_box(mask: npt.NDArray[Any]) -> tuple[int, int, int, int]:
    """The smallest box x1, y1, x2, y2 that holds all of ``mask`` `(H, W)`, which is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def encoded(mask: npt.NDArray[Any]) -> bytes:
    """A mask `(H, W)` in COCO's compressed run-length code.

    Raises:
        ToolchainError: faster-coco-eval is not installed.
    """
    code: bytes = mask_codec().encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return code


def result_rles(masks: Sequence[ObjectMask]) -> list[dict[str, Any]]:
    """Masks that were found as faster-coco-eval takes them.

    Raises:
        ToolchainError: faster-coco-eval is not installed.
    """
    codec = mask_codec()
    return [codec.frPyObjects(mask.to_rle(), *mask.picture) for mask in masks]


def mask_codec() -> Any:
    """The module that codes masks and compares them.

    Raises:
        ToolchainError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval.core import mask
    except ModuleNotFoundError as error:
        raise ToolchainError(
            "true masks need faster-coco-eval, which is not installed; pip install faster-coco-eval"
        ) from error
    return mask
