"""Maps with a value for every pixel: from the picture to the network's input, and from its outputs to the picture."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.tensor import Array, FloatArray
from edgecv.vision.image import Geometry, geometry

Classes = npt.NDArray[np.uint8]
_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

NO_CLASS = 255
"""The value of pixels without a class: not judged in a truth, not seen by the network in a result."""
_CHUNK_PIXELS = 1 << 15


def fit_map(values: Array, contract: InputContract, *, fill: float) -> Array:
    """A map `(H, W)` of a picture -> the same where `edgecv.vision.image.preprocess` puts its pixels, `(h, w)`.

    Values are picked and never mixed (nearest pixel centre); padding has the value ``fill``. The type stays.
    """
    place = geometry((values.shape[0], values.shape[1]), contract)
    moved = np.ascontiguousarray(values)
    if place.resized != place.picture:
        moved = cv2.resize(moved, place.resized[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    out = np.full(place.size, fill, dtype=values.dtype)
    top, left = place.offset
    height, width = (min(a, b) for a, b in zip(place.resized, place.size, strict=True))
    from_top, from_left = max(0, -top), max(0, -left)
    to_top, to_left = max(0, top), max(0, left)
    out[to_top : to_top + height, to_left : to_left + width] = moved[
        from_top : from_top + height, from_left : from_left + width
    ]
    return out


def best_class(planes: FloatArray) -> Classes:
    """The class of the largest value at each place of ``planes`` `(C, h, w)`, C <= 255; of equals the first."""
    best, classes = planes[0].copy(), np.zeros(planes.shape[1:], dtype=np.uint8)
    for index in range(1, len(planes)):
        better = planes[index] > best
        np.copyto(best, planes[index], where=better)
        classes[better] = index
    return classes


def classes_to_picture(grid: Classes, place: Geometry) -> Classes:
    """A class map `(h, w)` over the network's input -> that of the picture `(H, W)`, each pixel's nearest place.

    Pixels that a crop cut away are `NO_CLASS`.
    """
    if _is_picture(grid.shape, place):
        return grid.copy()
    rows, columns = (np.clip(np.floor(line + 0.5), 0, n - 1).astype(np.int64) for line, n in _lines(grid.shape, place))
    return _uncut(np.ascontiguousarray(grid[rows][:, columns]), place)


def planes_to_picture(planes: FloatArray, place: Geometry) -> Classes:
    """Planes of scores `(C, h, w)` over the network's input -> the best class of every pixel of the picture `(H, W)`.

    It is the class of the largest of the linearly interpolated planes. Where the four places around a pixel
    have the same best class that class wins whatever the weights are, so only the others are interpolated.
    Pixels that a crop cut away are `NO_CLASS`.
    """
    grid = best_class(planes)
    if _is_picture(grid.shape, place):
        return grid
    (tops, below, down), (lefts, right, across) = (_corners(line, n) for line, n in _lines(grid.shape, place))
    padded = np.pad(grid, ((0, 1), (0, 1)), mode="edge")
    mixed = (padded[:-1, :-1] != padded[1:, :-1]) | (padded[:-1, :-1] != padded[:-1, 1:])
    mixed |= padded[:-1, :-1] != padded[1:, 1:]
    cells = np.where(mixed, np.uint8(NO_CLASS), grid)
    found = np.ascontiguousarray(cells[tops][:, lefts])
    open_ = np.flatnonzero(found == NO_CLASS)
    table = np.ascontiguousarray(planes.reshape(len(planes), -1).T)
    width, flat = grid.shape[1], found.reshape(-1)
    for start in range(0, len(open_), _CHUNK_PIXELS):
        pixels = open_[start : start + _CHUNK_PIXELS]
        y, x = np.divmod(pixels, found.shape[1])
        weight_y, weight_x = down[y, None], across[x, None]
        upper = _between(table, tops[y] * width, lefts[x], right[x], weight_x)
        lower = _between(table, below[y] * width, lefts[x], right[x], weight_x)
        flat[pixels] = (upper + (lower - upper) * weight_y).argmax(axis=1)
    return _uncut(found, place)


def plane_to_picture(plane: FloatArray, place: Geometry) -> FloatArray:
    """Values `(h, w)` over the network's input, linearly interpolated -> those of the picture `(H, W)`; 0 where cut."""
    if _is_picture(plane.shape, place):
        return plane.copy()
    (tops, below, down), (lefts, right, across) = (_corners(line, n) for line, n in _lines(plane.shape, place))
    high = plane[tops] + (plane[below] - plane[tops]) * down[:, None]
    wide: FloatArray = high[:, lefts] + (high[:, right] - high[:, lefts]) * across
    outside = _outside(place)
    wide[outside[0]] = 0
    wide[:, outside[1]] = 0
    return wide


def picture_lines(
    counts: tuple[int, ...], place: Geometry, window: tuple[int, int, int, int]
) -> tuple[_Floats, _Floats]:
    """Where the centres of the rows and columns of ``window`` (x1, y1, x2, y2 in whole pixels of the picture) lie on a
    grid of ``counts`` (h, w) places over the network's input; 0 is the centre of the first place."""
    (rows, _), (columns, _) = _lines(counts, place)
    return rows[window[1] : window[3]], columns[window[0] : window[2]]


def sampled(plane: FloatArray, rows: _Floats, columns: _Floats) -> FloatArray:
    """Values of a grid ``plane`` `(h, w)` at fractional ``rows`` `(H,)` and ``columns`` `(W,)`, linear, `(H, W)`.

    Beyond the first and last place its value goes on.
    """
    (tops, below, down), (lefts, right, across) = (
        _corners(line, count) for line, count in ((rows, plane.shape[0]), (columns, plane.shape[1]))
    )
    high = plane[tops] + (plane[below] - plane[tops]) * down[:, None]
    wide: FloatArray = high[:, lefts] + (high[:, right] - high[:, lefts]) * across
    return wide


def _is_picture(shape: tuple[int, ...], place: Geometry) -> bool:
    return shape == place.picture == place.resized == place.size


def _lines(counts: tuple[int, ...], place: Geometry) -> Iterator[tuple[_Floats, int]]:
    """Where the centres of the picture's rows, then columns, lie on a grid of ``counts`` places; and the count."""
    for axis in (0, 1):
        scale = place.resized[axis] / place.picture[axis]
        centres = np.arange(place.picture[axis], dtype=np.float64) + 0.5
        network: _Floats = centres * scale + place.offset[axis]
        yield network * (counts[axis] / place.size[axis]) - 0.5, counts[axis]


def _corners(line: _Floats, count: int) -> tuple[_Ints, _Ints, FloatArray]:
    """The places before and after each position, and the weight 0..1 of the one after."""
    kept = np.clip(line, 0, count - 1)
    before = np.floor(kept).astype(np.int64)
    return before, np.minimum(before + 1, count - 1), (kept - before).astype(np.float32)


def _between(table: FloatArray, row: _Ints, left: _Ints, right: _Ints, weight: FloatArray) -> FloatArray:
    first = table[row + left]
    value: FloatArray = first + (table[row + right] - first) * weight
    return value


def _outside(place: Geometry) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Rows and columns of the picture whose centres a crop cut away."""
    rows, columns = ((line < -0.5) | (line >= count - 0.5) for line, count in _lines(place.size, place))
    return rows, columns


def _uncut(classes: Classes, place: Geometry) -> Classes:
    rows, columns = _outside(place)
    classes[rows] = NO_CLASS
    classes[:, columns] = NO_CLASS
    return classes
