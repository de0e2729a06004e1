"""What the heads of detectors share: their settings, and reading rows out of output tensors."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray
from edgecv.errors import ModelError

Shape = tuple[int, ...]
Ints = npt.NDArray[np.int64]
Strides = tuple[int, ...]


@dataclass(frozen=True)
class Candidates:
    """The objects of one picture that reach the score threshold, in any order.

    ``boxes`` `(M, 4)` float32 as x1, y1, x2, y2 in pixels of the network input, ``scores`` `(M,)` float32,
    ``class_ids`` `(M,)` int64; ``keypoints`` `(M, K, 3)` float32 (x, y, score) where the head gives them.
    """

    boxes: FloatArray
    scores: FloatArray
    class_ids: Ints
    keypoints: FloatArray | None = None


@dataclass(frozen=True)
class Option:
    """A setting of a head: its default, what is a fitting value, and that in words."""

    default: Any
    fits: Callable[[Any], bool]
    allowed: str


@dataclass(frozen=True)
class Head:
    """How the outputs of one kind of detector are read.

    ``problems`` says why outputs of these shapes do not fit, ``decode`` turns them into candidates;
    ``suppress`` says whether candidates overlap and need non-maximum suppression; ``ranked`` whether the network picks
    and orders its rows by score, so that a row means another place in every picture.
    """

    what: str
    problems: Callable[[FamilySpec, Sequence[Shape]], list[str]]
    decode: Callable[[Sequence[FloatArray], FamilySpec, InputContract], Candidates]
    options: Mapping[str, Option] = field(default_factory=dict)
    suppress: bool = True
    ranked: bool = False


def flag(default: bool) -> Option:
    """A setting that is on or off."""
    return Option(default, lambda value: isinstance(value, bool), "true or false")


def is_number(value: Any) -> bool:
    """Whether this is a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Whether this is an int of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_list(value: Any, fits: Callable[[Any], bool], *, length: int | None = None) -> bool:
    """Whether this is a list (of ``length``) of fitting values, not empty."""
    if not isinstance(value, list | tuple) or len(value) == 0:
        return False
    return (length is None or len(value) == length) and all(fits(item) for item in value)


STRIDES = Option((8, 16, 32), lambda value: is_list(value, is_count), "a list of whole numbers, such as [8, 16, 32]")
MULTI_LABEL = flag(False)
NORMALIZED = flag(False)


def setting(head: Mapping[str, Option], spec: FamilySpec, name: str) -> Any:
    """The value of an option: what ``spec`` gives, or the default."""
    return spec.options.get(name, head[name].default)


def option_problems(allowed: Mapping[str, Option], spec: FamilySpec) -> list[str]:
    """What is wrong with ``spec.options``, in words."""
    owner = f"head {spec.head!r}" if spec.head else f"family {spec.kind}"
    found = []
    for name, value in spec.options.items():
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            found.append(f"{owner} has no option {name!r}; allowed: {', '.join(sorted(allowed))}.{hint}")
        elif not allowed[name].fits(value):
            found.append(f"option {name!r} of {owner} is {value!r}; allowed is {allowed[name].allowed}")
    return found


def width_problems(shapes: Sequence[Shape], width: int, why: str) -> list[str]:
    """Why outputs do not have ``width`` values for each box (channels first or last), in words."""
    return [
        f"an output has shape {shape}; {why} need {width} values for each box, so (1, N, {width}), (1, {width}, N), "
        f"(1, {width}, h, w) or (1, h, w, {width}). Check the number of labels."
        for shape in shapes
        if not has_width(shape, width)
    ]


def has_width(shape: Shape, width: int) -> bool:
    """Whether this shape holds rows of ``width`` values, channels first or last."""
    return len(shape) in (3, 4) and shape[0] == 1 and width in (shape[1], shape[-1])


def rows_of(output: FloatArray, width: int, *, first: bool = False) -> FloatArray:
    """A view `(N, width)` of an output `(1, N, width)`, `(1, width, N)`, `(1, width, h, w)` or `(1, h, w, width)`.

    ``first`` says which one counts where both fit: channels first, else last.

    Raises:
        ModelError: it has another shape.
    """
    shape = output.shape
    if not has_width(shape, width):
        raise ModelError(f"an output has shape {shape}; {width} values for each box are needed. Check the labels.")
    if shape[1] == width and (first or shape[-1] != width):
        turned: FloatArray = output.reshape(width, -1).T
        return turned
    return output.reshape(-1, width)


def map_of(output: FloatArray, width: int) -> tuple[FloatArray, int, int]:
    """A view `(h * w, width)` of a map `(1, width, h, w)` or `(1, h, w, width)`, with h and w.

    Raises:
        ModelError: it has another shape.
    """
    if output.ndim != 4:
        raise ModelError(
            f"an output has shape {output.shape}; a map (1, {width}, h, w) or (1, h, w, {width}) is needed"
        )
    rows = rows_of(output, width, first=True)
    first = output.shape[1] == width
    height, wide = output.shape[2:] if first else output.shape[1:3]
    return rows, int(height), int(wide)


def pick(scores: FloatArray, threshold: float, *, multi_label: bool = False) -> tuple[Ints, Ints, FloatArray]:
    """Rows of `(N, C)` ``scores`` of at least ``threshold``, with their class and score; `(M,)` each.

    A row gives its best class or, with ``multi_label``, each class that is good enough.

    Raises:
        ModelError: a score is NaN.
    """
    best = best_scores(scores)
    check_scores(best)
    rows: Ints = np.flatnonzero(best >= threshold)
    if scores.shape[1] == 1:
        return rows, np.zeros(len(rows), dtype=np.int64), best[rows]
    chosen = scores[rows]
    if multi_label:
        inner, classes = np.nonzero(chosen >= threshold)
        return rows[inner], classes, chosen[inner, classes]
    return rows, chosen.argmax(axis=1), best[rows]


def best_scores(scores: FloatArray) -> FloatArray:
    """The highest score of each row `(N, C)`."""
    if scores.shape[1] == 1:
        return scores[:, 0]
    if scores.strides[1] == scores.itemsize and len(scores) > 1:
        # Many short rows are slow to reduce in numpy: 0.17 instead of 0.6 ms for 8400 boxes of 80 classes.
        scores = cv2.transpose(scores).T
    best: FloatArray = scores.max(axis=1)
    return best


def check_scores(values: FloatArray) -> None:
    """Refuse scores with NaN, which every comparison would pass over in silence.

    Raises:
        ModelError: one is NaN.
    """
    if values.size and math.isnan(float(values.max())):
        broken = int(np.isnan(values).sum())
        raise ModelError(
            f"{broken} of {values.size} scores are NaN: a layer overflows. Check the picture's normalisation and the "
            "weights; fp16 overflows above 65504, keep such layers in fp32."
        )


def sigmoid(values: FloatArray) -> FloatArray:
    """``1 / (1 + exp(-values))`` without overflow."""
    result: FloatArray = np.tanh(values * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5)
    return result


def logit(share: float) -> float:
    """What `sigmoid` maps to ``share`` (0..1); infinite at both ends."""
    if share <= 0 or share >= 1:
        return -math.inf if share <= 0 else math.inf
    return math.log(share / (1 - share))


def growth(values: FloatArray) -> FloatArray:
    """``exp`` of box sizes, bounded so that a wild network gives a huge box and not an infinite one."""
    result: FloatArray = np.exp(np.minimum(values, np.float32(20)))
    return result


def softmax(values: FloatArray) -> FloatArray:
    """Over the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    shares: FloatArray = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def to_pixels(boxes: FloatArray, contract: InputContract, *, normalized: bool = True) -> FloatArray:
    """Coordinates `(M, 4)` (x and y in turn) that are shares of the input's size -> pixels."""
    if not normalized:
        return boxes
    height, width = contract.size
    scaled: FloatArray = boxes * np.array([width, height, width, height], dtype=np.float32)
    return scaled


@lru_cache(maxsize=32)
def points(size: tuple[int, int], strides: Strides) -> FloatArray:
    """Cells of all maps, one map behind the other, row by row: column, row and stride in pixels; `(N, 3)` float32.

    The maps of an input of (height, width) ``size`` have ``ceil(size / stride)`` cells.
    """
    parts = []
    for stride in strides:
        high, wide = -(-size[0] // stride), -(-size[1] // stride)
        y, x = np.divmod(np.arange(high * wide, dtype=np.float32), np.float32(wide))
        parts.append(np.stack([x, y, np.full(high * wide, stride, dtype=np.float32)], axis=1))
    cells: FloatArray = np.concatenate(parts)
    cells.setflags(write=False)  # shared by all callers
    return cells


def together(parts: Sequence[Candidates]) -> Candidates:
    """The candidates of several maps as one."""
    if len(parts) == 1:
        return parts[0]
    return Candidates(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.class_ids for part in parts]),
    )
