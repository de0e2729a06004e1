"""Made-up scenes as a data set: drawn when they are asked for, with exact boxes, masks, depth or keypoints.

Each sample is a scene of its own (background, objects, moment), a function of its number alone, so that nothing is
stored and two machines see the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec
from edgecv.core.results import DetectionTruth
from edgecv.data.files import fingerprint_of, truth_key
from edgecv.errors import DataError
from edgecv.families.depth_map import DepthTruth
from edgecv.families.instance_truth import InstanceTruth
from edgecv.families.pose_truth import COCO_MIRROR, PoseTruth
from edgecv.families.segmentation_map import MaskTruth
from edgecv.vision.crops import CROP_MARGIN, crop_window
from edgecv.vision.image import Image
from edgecv.vision.scenes import LABELS, Scene, SceneFrame, SceneSpec

BACKGROUND = "background"
DEFAULT_SAMPLES = 500
SIZE = (240, 320)
_FIRST = {"train": 0, "test": 1_000_000}
_SECONDS = 120.0
_MOMENTS = 20
_REMEMBERED = 256
"""Drawn scenes that a reader keeps, 0.2 MB each."""


class ScenesReader:
    """A `Reader` over scenes: colour pictures uint8 `(240, 320, 3)` BGR, ids such as ``train-00042``.

    ``look`` makes the picture and the truth of a frame; None where it does not show what is wanted.

    Safe to use from several threads.
    """

    skipped: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        numbers: Sequence[tuple[str, int]],
        spec: SceneSpec,
        look: Callable[[SceneFrame], tuple[Image, Any] | None],
        form: str,
    ) -> None:
        self._numbers = tuple(numbers)
        self._spec, self._look, self._form = spec, look, form
        # Calibration pictures are hashed, compared and then used: drawing them takes longer than a small network.
        self._seen = lru_cache(_REMEMBERED)(self._draw)
        self.ids: Sequence[str] = tuple(f"{split}-{number:05d}" for split, number in numbers)

    @property
    def truths(self) -> Sequence[Any]:
        """A scene's truth is known when it is drawn; until then there is only the kind of truth that it has."""
        return (self._form,) * len(self)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``: its picture and its truth."""
        image, truth = self._seen(index)
        return Sample(id=self.ids[index], image=image, truth=truth)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def sha256(self, index: int) -> str:
        """Hash of the picture's bytes, row by row."""
        return hashlib.sha256(self._seen(index)[0].tobytes()).hexdigest()

    def fingerprint(self) -> str:
        """Hash over the ids, pictures and truths of all samples; draws each once."""
        return fingerprint_of(
            (name, self._form, hashlib.sha256(image.tobytes() + repr(truth_key(truth)).encode()).hexdigest())
            for name, (image, truth) in self._drawn()
        )

    def _drawn(self) -> Iterator[tuple[str, tuple[Image, Any]]]:
        for index, name in enumerate(self.ids):
            yield name, self._seen(index)

    def _draw(self, index: int) -> tuple[Image, Any]:
        split, number = self._numbers[index]
        seed = _FIRST[split] + number
        scene, moments = Scene(replace(self._spec, seed=seed)), np.random.default_rng([seed, 9])
        for _ in range(_MOMENTS):
            found = self._look(scene.at(float(moments.uniform(0.0, _SECONDS)), noise_index=seed))
            if found is not None:
                return found
        raise DataError(f"scene {self.ids[index]} shows nothing that is wanted at {_MOMENTS} moments; take others")


def open_scenes(spec: DataSpec, *, labels: Sequence[str], only: frozenset[str] | None = None) -> ScenesReader:
    """Scenes with the truth that ``spec.kind`` names: ``scenes-boxes``, ``scenes-instances``, ``scenes-masks``,
    ``scenes-depth`` or ``scenes-keypoints`` (with ``spec.crop`` each sample is one person, cut out as
    `edgecv.vision.crops` does). ``scenes-noisy`` are clean here; `edgecv.data.noisy` puts the noise on.

    ``labels`` choose what appears (disc, box, triangle, person); those of ``scenes-masks`` begin with "background".
    ``spec.limit`` is the number of scenes of each split, 500 where it is not set; ``only`` keeps those with these ids.

    Raises:
        DataError: a label is nothing that scenes show, or stands twice.
    """
    classes = _classes(spec.kind, labels)
    count = DEFAULT_SAMPLES if spec.limit is None else spec.limit
    splits = ("train", "test") if spec.split == "all" else (spec.split,)
    numbers = [(split, number) for split in splits for number in range(count)]
    if only is not None:
        numbers = [(split, number) for split, number in numbers if f"{split}-{number:05d}" in only]
    haze = spec.kind == "scenes-depth"
    scene = SceneSpec(size=SIZE, classes=tuple(sorted(classes)), haze=haze)
    if spec.kind == "scenes-noisy":
        scene = replace(scene, noise=0.0)
    truth = _truth_maker(spec.kind, classes)
    look = partial(_person, aspect=spec.crop) if spec.crop is not None else lambda frame: (frame.image, truth(frame))
    return ScenesReader(numbers, scene, look, spec.kind)


def _classes(kind: str, labels: Sequence[str]) -> list[int]:
    """The index in `LABELS` of each label, in the order of the labels; depth and noise need none and show all."""
    if kind in ("scenes-depth", "scenes-noisy"):
        return list(range(len(LABELS)))
    allowed = {"scenes-masks": (BACKGROUND, *LABELS), "scenes-keypoints": ("person",)}.get(kind, LABELS)
    wanted = list(labels)
    if kind == "scenes-masks" and wanted[:1] != [BACKGROUND]:
        raise DataError(f"the first label is {wanted[0]!r}; data of kind {kind} needs {BACKGROUND!r} there")
    names = wanted[1:] if kind == "scenes-masks" else wanted
    strange = [name for name in names if name not in LABELS or (kind == "scenes-keypoints" and name != "person")]
    if strange or len(set(names)) != len(names) or not names:
        shown = ", ".join(map(repr, wanted))
        raise DataError(f"the labels are {shown}; data of kind {kind} shows {', '.join(allowed)}, each at most once")
    return [LABELS.index(name) for name in names]


def _truth_maker(kind: str, classes: Sequence[int]) -> Callable[[SceneFrame], Any]:
    place = np.full(len(LABELS), -1, dtype=np.int64)
    place[list(classes)] = np.arange(len(classes))
    if kind == "scenes-masks":
        table = np.concatenate([[0], place + 1]).astype(np.uint8)
        return lambda frame: MaskTruth(table[frame.class_map()])
    if kind == "scenes-depth":
        return lambda frame: DepthTruth(frame.depth_m())
    if kind == "scenes-noisy":
        return lambda frame: "picture"
    if kind == "scenes-instances":
        return lambda frame: _instances(frame, place)
    if kind == "scenes-keypoints":
        return lambda frame: _poses(frame, np.flatnonzero(frame.keypoints[..., 2].any(axis=1)))
    return lambda frame: _boxes(frame, place)


def _boxes(frame: SceneFrame, place: np.ndarray[Any, Any]) -> DetectionTruth:
    """Objects of which half shows; the others are neither to be found nor to be missed."""
    return DetectionTruth(
        np.concatenate([frame.boxes, frame.ignored]),
        place[np.concatenate([frame.class_ids, frame.ignored_class_ids])],
        np.repeat([False, True], [len(frame.boxes), len(frame.ignored)]),
    )


def _instances(frame: SceneFrame, place: np.ndarray[Any, Any]) -> InstanceTruth:
    """The pixels of each object; those of which less than half shows are crowds, which nobody has to find."""
    marks = np.arange(1, len(frame.shape_ids) + 1, dtype=np.uint8)
    masks = frame.shapes[None] == marks[:, None, None]
    return InstanceTruth.of(masks, place[frame.shape_class_ids], ~np.isin(frame.shape_ids, frame.ids))


def _poses(frame: SceneFrame, rows: np.ndarray[Any, Any]) -> PoseTruth:
    """The persons in ``rows`` of whom half shows; those who show less are crowds, which nobody has to find."""
    size = (frame.image.shape[0], frame.image.shape[1])
    hidden = frame.ignored[frame.ignored_class_ids == LABELS.index("person")]
    boxes, count = np.concatenate([frame.boxes[rows], hidden]), len(hidden)
    keypoints = np.concatenate([frame.keypoints[rows], np.zeros((count, *frame.keypoints.shape[1:]), np.float32)])
    areas = np.concatenate([_areas(frame)[rows], np.prod(hidden[:, 2:] - hidden[:, :2], axis=1)]).astype(np.float32)
    keypoints[..., 2] *= 2
    return PoseTruth(keypoints, boxes, areas, np.repeat([False, True], [len(rows), count]), size, COCO_MIRROR)


def _areas(frame: SceneFrame) -> np.ndarray[Any, Any]:
    """The area of each object `(N,)`, as if nothing hid it: its pixels over the share of it that shows."""
    counts = np.bincount(frame.shapes.ravel(), minlength=len(frame.shape_ids) + 1)[1:]
    shown = np.array([counts[frame.shape_ids == number].sum() for number in frame.ids], dtype=np.float64)
    return np.maximum(shown, 1.0) / np.maximum(frame.visible, 1e-3)


def _person(frame: SceneFrame, *, aspect: float) -> tuple[Image, PoseTruth] | None:
    """The first person of a frame, cut out; None where nobody shows enough."""
    size = (frame.image.shape[0], frame.image.shape[1])
    for row in np.flatnonzero(frame.keypoints[..., 2].any(axis=1)):
        window = crop_window(size, frame.boxes[row], margin=CROP_MARGIN, aspect=aspect)
        if window is not None:
            left, top, right, bottom = window
            alone = replace(frame, ignored=frame.ignored[:0], ignored_class_ids=frame.ignored_class_ids[:0])
            return np.ascontiguousarray(frame.image[top:bottom, left:right]), _poses(alone, np.array([row])).cut(window)
    return None
