"""What a model says about a picture, as structs of arrays.

Boxes are x1, y1, x2, y2 in pixels of the picture, continuous: pixel i covers [i, i + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgecv.core.masks import ObjectMask
from edgecv.errors import ToolchainError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Placement(Protocol):
    """Where a picture lies in the network's input (`edgecv.vision.image.Geometry`)."""

    def to_network(self, points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Points `(..., 2)` as x, y in the picture -> x, y in the network's input."""
        ...


@dataclass(frozen=True)
class Classification:
    """The scores of one picture.

    ``scores`` is `(C,)` float32, probabilities 0..1 where the model gives them or a softmax of its
    logits; ``class_ids`` is `(K,)` int64, the best classes, best first.
    """

    scores: Floats
    class_ids: Ints
    labels: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """Index of the best class."""
        return int(self.class_ids[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``classes`` is a list of id, label and score, best first."""
        return {
            "classes": [
                {"id": int(index), "label": label_of(self.labels, int(index)), "score": float(self.scores[index])}
                for index in self.class_ids
            ]
        }

    def words(self) -> str:
        """The best classes with their scores, on one line."""
        return ", ".join(f"{label_of(self.labels, int(i))} {self.scores[i]:.3f}" for i in self.class_ids)

    def brief(self) -> str:
        """The name of the best class."""
        return label_of(self.labels, self.best) if len(self.class_ids) else ""


@dataclass(frozen=True)
class Embedding:
    """What a picture looks like: ``vector`` is `(D,)` float32 of length 1; the cosine of two is their dot product."""

    vector: Floats

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"embedding": [round(float(value), 6) for value in self.vector]}

    def likeness(self, other: "Embedding") -> float:
        """The cosine of the two, 0 where they point apart."""
        return max(0.0, float(self.vector @ other.vector))

    def words(self) -> str:
        """Its length and how it begins."""
        begin = np.array2string(self.vector[:4], precision=3)
        return f"embedding of {len(self.vector)} numbers, which begin {begin}"


@dataclass(frozen=True)
class Poses:
    """Keypoints of the persons (or hands, faces, ...) of one picture.

    ``keypoints`` is `(N, K, 3)` float32: x and y in pixels of the picture, score 0..1; ``scores`` is
    `(N,)` float32. ``names`` are the K keypoints', ``skeleton`` pairs of them to join with a line.
    ``boxes`` `(N, 4)` float32 is there where the model (or the stage before) gives it.
    """

    keypoints: Floats
    scores: Floats
    boxes: Floats | None = None
    names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.keypoints.ndim != 3 or self.keypoints.shape[0] != count or self.keypoints.shape[2] != 3:
            raise ValueError(f"keypoints have shape {self.keypoints.shape}; {count} scores need ({count}, K, 3)")

    def __len__(self) -> int:
        return len(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``poses`` is a list of score, keypoints ([x, y, score]) and, where known, box."""
        poses: list[dict[str, Any]] = [
            {"score": float(self.scores[row]), "keypoints": self.keypoints[row].round(3).tolist()}
            for row in range(len(self))
        ]
        if self.boxes is not None:
            for row, pose in enumerate(poses):
                pose["box"] = self.boxes[row].round(3).tolist()
        return {"poses": poses}

    def words(self) -> str:
        """How many, with their scores."""
        scores = ", ".join(f"{score:.2f}" for score in self.scores)
        return f"{len(self)} pose{'s' if len(self) != 1 else ''}, scores {scores}"


@dataclass(frozen=True)
class Detections:
    """The objects of one picture.

    ``boxes`` is `(N, 4)` float32, ``scores`` `(N,)` float32 0..1, ``class_ids`` `(N,)` int64 with
    ``labels`` for their names. A tracker adds ``track_ids`` `(N,)` int64 (>= 1); ``keypoints`` is
    `(N, K, 3)` float32 (x, y, score) and ``embeddings`` `(N, D)` float32 where a model gives them.
    ``second`` holds what the second stage said of each object (a `Classification`, `Poses`, ...), in
    the order of the boxes; None for an object that it has not seen; () where there is no second stage.
    ``masks`` are the pixels of each object where a model gives them, else ().
    """

    boxes: Floats
    scores: Floats
    class_ids: Ints
    labels: tuple[str, ...] = ()
    track_ids: Ints | None = None
    keypoints: Floats | None = None
    embeddings: Floats | None = None
    skeleton: tuple[tuple[int, int], ...] = ()
    second: tuple[Any, ...] = field(default=())
    masks: tuple[ObjectMask, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4) or self.class_ids.shape != (count,):
            raise ValueError(
                f"boxes {self.boxes.shape} and class_ids {self.class_ids.shape} do not fit {count} scores; "
                f"({count}, 4) and ({count},) are needed"
            )
        for name in ("track_ids", "keypoints", "embeddings"):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise ValueError(f"{name} has {len(value)} rows for {count} scores")
        if self.second and len(self.second) != count:
            raise ValueError(f"second has {len(self.second)} results for {count} scores")
        if self.masks and len(self.masks) != count:
            raise ValueError(f"there are {len(self.masks)} masks for {count} scores")

    @staticmethod
    def empty(labels: tuple[str, ...] = ()) -> "Detections":
        """No object."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), labels)

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, rows: npt.NDArray[Any]) -> "Detections":
        """The objects of ``rows``: a mask `(N,)` bool or indices `(M,)`, in that order."""
        chosen: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                chosen[item.name] = value[rows]
        for name in ("second", "masks"):
            each = getattr(self, name)
            if each:
                chosen[name] = tuple(each[int(row)] for row in np.arange(len(self))[rows])
        return replace(self, **chosen)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``objects`` is a list of box, score, class, label and what else is known."""
        objects: list[dict[str, Any]] = []
        for row in range(len(self)):
            index = int(self.class_ids[row])
            item: dict[str, Any] = {
                "box": [round(float(value), 3) for value in self.boxes[row]],
                "score": round(float(self.scores[row]), 5),
                "class": index,
                "label": label_of(self.labels, index),
            }
            if self.track_ids is not None:
                item["track"] = int(self.track_ids[row])
            if self.keypoints is not None:
                item["keypoints"] = self.keypoints[row].round(3).tolist()
            if self.masks:
                item["mask"] = self.masks[row].to_rle()
            if self.second and self.second[row] is not None:
                item["second"] = self.second[row].to_dict()
            objects.append(item)
        return {"objects": objects}

    def words(self) -> str:
        """Each object's name, score and box, on one line."""
        found = (
            f"{label_of(self.labels, int(self.class_ids[row]))} {self.scores[row]:.2f} at "
            + ", ".join(f"{value:.0f}" for value in self.boxes[row])
            for row in range(len(self))
        )
        return "; ".join(found) or "nothing found"

    def to_supervision(self) -> Any:
        """The same objects as `supervision.Detections`.

        Raises:
            ToolchainError: supervision is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            raise ToolchainError("supervision is not installed; pip install supervision") from error
        names = np.array([label_of(self.labels, int(index)) for index in self.class_ids], dtype=object)
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.copy(),
            mask=np.stack([mask.full() for mask in self.masks]) if self.masks else None,
            tracker_id=None if self.track_ids is None else self.track_ids.copy(),
            data={"class_name": names.astype(str)},
        )


_LEAST_LEFT = 0.3
"""Of an object that a picture's edge cuts off so much more, what is left need not be found."""


@dataclass(frozen=True)
class Shapes:
    """What a truth has in the plane of its picture, in pixels: ``boxes`` `(B, 4)` float32 x1, y1, x2, y2; ``points``
    `(P, 2)` float32 x, y; ``planes`` `(M, H, W)` uint8, 0 outside of what they show, or None."""

    boxes: Floats
    points: Floats
    planes: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class DetectionTruth:
    """The true objects of one picture.

    ``boxes`` `(N, 4)` float32 and ``class_ids`` `(N,)` int64 as in `Detections`. ``crowd`` `(N,)` bool marks
    boxes around many objects, which count neither as found nor as missed (COCO's iscrowd; ignore
    regions). ``area`` `(N,)` float32, in square pixels, where it is known otherwise than by the boxes. ``size``
    (height, width) of the picture is there in training alone, where boxes are cut at its edges.
    """

    boxes: Floats
    class_ids: Ints
    crowd: npt.NDArray[np.bool_] | None = None
    area: Floats | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        count = len(self.class_ids)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes {self.boxes.shape} do not fit {count} class_ids; ({count}, 4) is needed")
        for name in ("crowd", "area"):
            value = getattr(self, name)
            if value is not None and value.shape != (count,):
                raise ValueError(f"{name} has shape {value.shape} for {count} boxes; ({count},) is needed")

    def placed(self, place: Placement, size: tuple[int, int]) -> DetectionTruth:
        """The same where ``place`` puts the picture's pixels, in a network input of ``size`` (height, width).

        Boxes are cut at the edges. What lies outside is gone; an object of which less than 0.3 is left inside is
        marked as ``crowd``: the network has to learn neither that it is there nor that it is not.
        """
        corners = np.asarray(place.to_network(self.boxes.reshape(-1, 2, 2))).reshape(-1, 4)
        return self._cut(corners, size)

    def shapes(self) -> Shapes:
        """The boxes, to be moved with their picture."""
        return Shapes(self.boxes, np.zeros((0, 2), dtype=np.float32))

    def with_shapes(self, shapes: Shapes, *, size: tuple[int, int], mirrored: bool) -> DetectionTruth:
        """The same with other boxes in a picture of ``size``, cut as `placed` does."""
        return self._cut(shapes.boxes, size)

    def joined(self, others: Sequence[DetectionTruth]) -> DetectionTruth:
        """The objects of this and of ``others``, all in pixels of the same picture."""
        every = (self, *others)
        crowds = [np.zeros(len(truth.class_ids), bool) if truth.crowd is None else truth.crowd for truth in every]
        areas = [truth.area for truth in every if truth.area is not None]
        return DetectionTruth(
            np.concatenate([truth.boxes for truth in every]),
            np.concatenate([truth.class_ids for truth in every]),
            np.concatenate(crowds),
            np.concatenate(areas) if len(areas) == len(every) else None,
            self.size,
        )

    def _cut(self, corners: npt.NDArray[Any], size: tuple[int, int]) -> DetectionTruth:
        """With these boxes, cut at the edges of a picture of ``size``."""
        cut = corners.clip(0, np.array([size[1], size[0], size[1], size[0]]))
        before, left = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (corners, cut))
        keep = left > 0
        scale = left / np.maximum(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1), 1e-9)
        crowd = left < _LEAST_LEFT * before
        if self.crowd is not None:
            crowd = crowd | self.crowd
        return DetectionTruth(
            cut[keep].astype(np.float32),
            self.class_ids[keep],
            crowd[keep],
            None if self.area is None else (self.area * scale)[keep].astype(np.float32),
            size,
        )


def label_of(labels: tuple[str, ...], index: int) -> str:
    """The name of a class; its number where it has none."""
    return labels[index] if 0 <= index < len(labels) else str(index)
