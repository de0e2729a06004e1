"""Made-up scenes with exact truth: textured things and walking figures that enter, cross, hide each other and leave.

A frame is a function of seed and time alone: any frame can be asked for, in any order, and is the same
everywhere. Used by the synthetic camera, by tests and to train the demo's detector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.vision.image import Image

LABELS = ("disc", "box", "triangle", "person")
SKELETON_POINTS = 17
_LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
_SHIFT = 4
_ONE = 1 << _SHIFT
_MIN_VISIBLE = 0.5
_MIN_INSIDE = 0.5
_HAZE_M, _HAZE_GRAY = 8.0, 205.0
_GRAINS = 4
_MAX_OBJECTS = 200  # each has a number in a mask of bytes


@dataclass(frozen=True)
class SceneSpec:
    """``size`` is (height, width) in pixels; speeds do not depend on ``fps``. ``objects`` are there at a time, mostly.

    ``noise`` is the standard deviation of the pixel noise; with ``haze``, what is far away is pale; ``classes`` are
    those of `LABELS` that appear.
    """

    size: tuple[int, int] = (240, 320)
    objects: int = 6
    seed: int = 0
    fps: float = 30.0
    noise: float = 3.0
    haze: bool = False
    classes: tuple[int, ...] = (0, 1, 2, 3)

    def __post_init__(self) -> None:
        if min(self.size) < 32:
            raise ValueError(f"size is {self.size}; height and width of at least 32 pixels are needed")
        if not 0 <= self.objects <= _MAX_OBJECTS:
            raise ValueError(f"objects is {self.objects}; 0 to {_MAX_OBJECTS} are allowed")
        if not (self.fps > 0 and self.noise >= 0 and self.seed >= 0):
            raise ValueError(
                f"fps {self.fps}, noise {self.noise}, seed {self.seed}: above 0, from 0 and from 0 is allowed"
            )
        if not self.classes or not set(self.classes) <= set(range(len(LABELS))):
            raise ValueError(f"classes are {self.classes}; some of 0 to {len(LABELS) - 1} are needed")


@dataclass(frozen=True)
class SceneFrame:
    """One frame with its truth, objects in the order of their ids.

    ``boxes`` `(N, 4)` float32 x1, y1, x2, y2 in pixels, cut at the edges; ``ids``, ``class_ids`` `(N,)` int64;
    ``visible`` `(N,)` float32, the share of the object that is not hidden or outside; ``keypoints``
    `(N, 17, 3)` float32 x, y and 1, 0 where outside the picture; all 0 for what is no person. Only objects of which
    half can be seen; ``ignored`` `(M, 4)` are the boxes of the others that show at all, ``ignored_class_ids`` `(M,)`
    their classes. ``shapes`` `(H, W)` uint8 tells for each pixel which object shows there, those that are ignored too:
    0 for none, else 1 + its place in ``shape_ids`` and ``shape_class_ids``. ``shape_depths_m`` `(M,)`
    float32 is how far away each is, in metres; what was drawn later is nearer.
    """

    image: Image
    boxes: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]
    class_ids: npt.NDArray[np.int64]
    visible: npt.NDArray[np.float32]
    keypoints: npt.NDArray[np.float32]
    ignored: npt.NDArray[np.float32]
    ignored_class_ids: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.uint8]
    shape_ids: npt.NDArray[np.int64]
    shape_class_ids: npt.NDArray[np.int64]
    shape_depths_m: npt.NDArray[np.float32]

    def class_map(self) -> npt.NDArray[np.uint8]:
        """The class of each pixel `(H, W)`: 0 for the background, 1 + its index in `LABELS` for an object."""
        table = np.concatenate([[0], self.shape_class_ids + 1]).astype(np.uint8)
        classes: npt.NDArray[np.uint8] = table[self.shapes]
        return classes

    def depth_m(self) -> npt.NDArray[np.float32]:
        """How far away each pixel is, `(H, W)` float32 in metres; the background 6 m (bottom) to 12 m (top)."""
        return _depth(self.shapes, self.shape_depths_m)


@dataclass(frozen=True)
class _Thing:
    """One object from its entry to its exit. Lengths are shares of the picture's height."""

    kind: int
    size: float
    ratio: float
    start: tuple[float, float]
    end: tuple[float, float]
    sway: float
    sway_waves: float
    turn: float
    spin: float
    color: tuple[int, int, int]
    second: tuple[int, int, int]


@dataclass
class Scene:
    """Frames of one `SceneSpec`."""

    spec: SceneSpec
    _background: Any = field(default=None, repr=False)
    _draws: np.random.Generator | None = field(default=None, repr=False)
    _noise: list[Any] = field(default_factory=list, repr=False)

    def frame(self, index: int) -> SceneFrame:
        """The frame ``index`` (0 or more) with its truth."""
        return self.at(index / self.spec.fps, noise_index=index)

    def at(self, time_s: float, *, noise_index: int = 0) -> SceneFrame:
        """The scene at ``time_s`` seconds."""
        spec = self.spec
        height, width = spec.size
        image = self._backdrop(time_s)
        mask = np.zeros((height, width), dtype=np.uint8)
        found = []
        for slot in range(spec.objects):
            thing, share, number = self._thing(slot, time_s)
            centre = _place(thing, share, width / height) * height
            angle = thing.turn + thing.spin * share
            if thing.kind == 3:
                points, area, outline = _person(image, mask, slot + 1, thing, centre, share, height)
            else:
                points = np.zeros((SKELETON_POINTS, 3), dtype=np.float32)
                area, outline = _shape(image, mask, slot + 1, thing, centre, angle, height)
            found.append((number, thing.kind, outline, area, points, slot + 1))
        depths_m = _depths(len(found))
        if spec.haze:
            clear = np.exp(-_depth(mask, depths_m) / _HAZE_M)[..., None]
            image = (image * clear + _HAZE_GRAY * (1 - clear)).astype(np.uint8)
        if spec.noise > 0:
            image = cv2.add(image, self._grain(noise_index), dtype=cv2.CV_8U)
        return _truth(image, mask, found, depths_m)

    def _thing(self, slot: int, time_s: float) -> tuple[_Thing, float, int]:
        """What a slot holds at a time: the object, how far it is on its way (0..1), its id."""
        spec = self.spec
        period_s, phase = _rhythm(spec.seed, slot)
        turns = time_s / period_s + phase
        number = math.floor(turns)
        thing = _draw_thing(spec.seed, slot, number, spec.size[1] / spec.size[0], spec.classes)
        return thing, turns - number, number * spec.objects + slot + 1

    def _backdrop(self, time_s: float) -> Image:
        height, width = self.spec.size
        if self._background is None:
            draws = np.random.default_rng([self.spec.seed, 1])
            coarse = draws.integers(40, 190, (6, 8, 3)).astype(np.float32)
            fine = draws.normal(0, 14, (height // 3 + 1, width // 3 + 1, 3)).astype(np.float32)
            smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            grain = cv2.resize(fine, (width, height), interpolation=cv2.INTER_LINEAR)
            self._background = np.clip(smooth * 0.7 + 40 + grain, 0, 255).astype(np.uint8)
        light = 1.0 + 0.15 * math.sin(2 * math.pi * time_s / 40.0)
        picture: Image = cv2.convertScaleAbs(self._background, alpha=light)
        return picture

    def _grain(self, index: int) -> Any:
        """One of four pictures of noise; they follow each other in one row of draws."""
        while len(self._noise) <= index % _GRAINS:
            self._draws = self._draws or np.random.default_rng([self.spec.seed, 2])
            self._noise.append(self._draws.normal(0, self.spec.noise, (*self.spec.size, 3)).astype(np.int16))
        return self._noise[index % _GRAINS]


@lru_cache(maxsize=4096)
def _rhythm(seed: int, slot: int) -> tuple[float, float]:
    draws = np.random.default_rng([seed, 3, slot])
    return float(draws.uniform(5.0, 11.0)), float(draws.uniform(0.0, 1.0))


@lru_cache(maxsize=512)  # what is in the picture now; more would only grow for hours
def _draw_thing(seed: int, slot: int, number: int, aspect: float, classes: tuple[int, ...]) -> _Thing:
    draws = np.random.default_rng([seed, 4, slot, number])
    kind = int(draws.choice(classes))
    size = float(draws.uniform(0.14, 0.3) * (1.5 if kind == 3 else 1.0))
    sideways = draws.random() < 0.75
    near, far = -0.6 * size, aspect + 0.6 * size
    low, high = -0.6 * size, 1 + 0.6 * size
    if sideways:
        ends = [(near, draws.uniform(0.15, 0.85)), (far, draws.uniform(0.15, 0.85))]
    else:
        edge = min(0.15, 0.4 * aspect)
        ends = [(draws.uniform(edge, aspect - edge), low), (draws.uniform(edge, aspect - edge), high)]
    if draws.random() < 0.5:
        ends.reverse()
    color, second = draws.integers(0, 256, 3), draws.integers(0, 256, 3)
    color[int(draws.integers(0, 3))] = draws.choice([10, 250])
    return _Thing(
        kind,
        size,
        float(draws.uniform(0.7, 1.4)),
        (float(ends[0][0]), float(ends[0][1])),
        (float(ends[1][0]), float(ends[1][1])),
        float(draws.uniform(0.0, 0.06)),
        float(draws.uniform(0.5, 1.5)),
        float(draws.uniform(0, 2 * math.pi)),
        float(draws.uniform(-3, 3)),
        (int(color[0]), int(color[1]), int(color[2])),
        (int(second[0]), int(second[1]), int(second[2])),
    )


def _place(thing: _Thing, share: float, aspect: float) -> npt.NDArray[np.float64]:
    start, end = np.array(thing.start), np.array(thing.end)
    along = end - start
    across = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-9)
    wave = thing.sway * math.sin(2 * math.pi * thing.sway_waves * share)
    place: npt.NDArray[np.float64] = start + along * share + across * wave
    return place


def _fixed(points: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Continuous coordinates for OpenCV: its pixel 0 has its centre at 0, ours at 0.5."""
    fixed: npt.NDArray[np.int32] = np.round((points - 0.5) * _ONE).astype(np.int32)
    return fixed


def _shape(
    image: Image, mask: Image, mark: int, thing: _Thing, centre: Any, angle: float, height: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """Draw a disc, box or triangle; its area in pixels and its corners (the disc's: of its box)."""
    half = thing.size * height / 2
    if thing.kind == 0:
        for canvas, color in ((image, thing.color), (mask, mark)):
            cv2.circle(canvas, _point(centre), round(half * _ONE), color, -1, cv2.LINE_8, _SHIFT)
        inner = centre + 0.4 * half * np.array([math.cos(angle), math.sin(angle)])
        cv2.circle(image, _point(inner), round(0.35 * half * _ONE), thing.second, -1, cv2.LINE_8, _SHIFT)
        return math.pi * half * half, np.array([centre - half, centre + half])
    if thing.kind == 1:
        wide, tall = half * math.sqrt(thing.ratio), half / math.sqrt(thing.ratio)
        corners = np.array([[-wide, -tall], [wide, -tall], [wide, tall], [-wide, tall]]) + centre
        area = 4 * wide * tall
        stripe = np.array([[-wide, -tall / 4], [wide, -tall / 4], [wide, tall / 4], [-wide, tall / 4]]) + centre
    else:
        turns = angle + np.arange(3) * 2 * math.pi / 3
        corners = centre + half * 1.15 * np.column_stack([np.cos(turns), np.sin(turns)])
        area = 3 * math.sqrt(3) / 4 * (half * 1.15) ** 2
        stripe = centre + (corners - centre) * 0.45
    for canvas, color in ((image, thing.color), (mask, mark)):
        cv2.fillPoly(canvas, [_fixed(corners)], color, cv2.LINE_8, _SHIFT)
    cv2.fillPoly(image, [_fixed(stripe)], thing.second, cv2.LINE_8, _SHIFT)
    return area, corners


def _person(
    image: Image, mask: Image, mark: int, thing: _Thing, centre: Any, share: float, height: int
) -> tuple[npt.NDArray[np.float32], float, npt.NDArray[np.float64]]:
    """Draw a walking figure; its 17 keypoints, its area in pixels and the corners of its box."""
    tall = thing.size * height
    step = math.sin(2 * math.pi * share * 9) * 0.5
    points = centre + tall * _joints(step)
    thick = max(2, round(0.085 * tall))
    head, radius = centre + tall * np.array([0.0, -0.41]), 0.085 * tall
    low = np.minimum(points.min(axis=0) - thick / 2, head - radius)
    high = np.maximum(points.max(axis=0) + thick / 2, head + radius)
    corner = np.floor(low) - 2
    wide, deep = (np.ceil(high) - corner).astype(int) + 2
    alone = np.zeros((deep, wide), dtype=np.uint8)  # limbs overlap, so the area is counted and not computed
    _figure(image, points, head, radius, thick, thing.second, thing.color)
    _figure(mask, points, head, radius, thick, mark, mark)
    _figure(alone, points - corner, head - corner, radius, thick, 1, 1)
    within = ((points >= 0) & (points < [image.shape[1], image.shape[0]])).all(axis=1)
    keypoints = np.concatenate([points, within[:, None]], axis=1).astype(np.float32)
    return keypoints, float(cv2.countNonZero(alone)), np.array([low, high])


def _figure(canvas: Image, points: Any, head: Any, radius: float, thick: int, body: Any, cloth: Any) -> None:
    for one, other in _LIMBS:
        cv2.line(canvas, _point(points[one]), _point(points[other]), body, thick, cv2.LINE_8, _SHIFT)
    cv2.fillPoly(canvas, [_fixed(points[[5, 6, 12, 11]])], cloth, cv2.LINE_8, _SHIFT)
    cv2.circle(canvas, _point(head), round(radius * _ONE), body, -1, cv2.LINE_8, _SHIFT)


def _joints(step: float) -> npt.NDArray[np.float64]:
    """COCO's 17 points of a figure of height 1 around its centre; ``step`` -0.5..0.5 swings arms and legs."""
    swing = 0.22 * step
    return np.array(
        [
            [0.0, -0.40], [-0.02, -0.43], [0.02, -0.43], [-0.05, -0.41], [0.05, -0.41],
            [-0.11, -0.29], [0.11, -0.29], [-0.14, -0.14], [0.14, -0.14],
            [-0.14 + swing, 0.01], [0.14 - swing, 0.01], [-0.07, 0.02], [0.07, 0.02],
            [-0.08 - swing, 0.24], [0.08 + swing, 0.24], [-0.08 - 1.7 * swing, 0.45], [0.08 + 1.7 * swing, 0.45],
        ]
    )  # fmt: skip


def _point(place: Any) -> tuple[int, int]:
    fixed = _fixed(np.asarray(place))
    return int(fixed[0]), int(fixed[1])


def _depths(count: int) -> npt.NDArray[np.float32]:
    """Metres of the objects in the order in which they are drawn: the last hides the others, so it is the nearest."""
    return np.linspace(5.5, 1.0, count, dtype=np.float32)


def _depth(shapes: npt.NDArray[np.uint8], depths_m: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    height = len(shapes)
    table = np.concatenate([[0.0], depths_m]).astype(np.float32)
    behind = np.linspace(12.0, 6.0, height, dtype=np.float32)[:, None]
    depth: npt.NDArray[np.float32] = np.where(shapes > 0, table[shapes], behind)
    return depth


def _truth(image: Image, mask: Image, found: list[Any], depths_m: npt.NDArray[np.float32]) -> SceneFrame:
    height, width = mask.shape
    counts = np.bincount(mask.ravel(), minlength=len(found) + 1)
    rows, ignored = [], []
    for number, kind, outline, area, points, mark in found:
        low, high = outline.min(axis=0), outline.max(axis=0)
        cut_low, cut_high = np.clip(low, 0, [width, height]), np.clip(high, 0, [width, height])
        inside = float(np.prod(cut_high - cut_low) / np.prod(high - low))
        seen = min(1.0, counts[mark] / area)
        if inside < _MIN_INSIDE or seen < _MIN_VISIBLE:
            if counts[mark] > 0:
                ignored.append((kind, np.concatenate([cut_low, cut_high])))
            continue
        rows.append((number, kind, np.concatenate([cut_low, cut_high]), seen, points))
    rows.sort(key=lambda row: row[0])
    return SceneFrame(
        image,
        np.array([row[2] for row in rows], dtype=np.float32).reshape(-1, 4),
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[3] for row in rows], dtype=np.float32),
        np.array([row[4] for row in rows], dtype=np.float32).reshape(-1, SKELETON_POINTS, 3),
        np.array([row[1] for row in ignored], dtype=np.float32).reshape(-1, 4),
        np.array([row[0] for row in ignored], dtype=np.int64),
        mask,
        np.array([item[0] for item in found], dtype=np.int64),
        np.array([item[1] for item in found], dtype=np.int64),
        depths_m,
    )
