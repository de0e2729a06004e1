"""Which pre-processing made a network input: channel order, numbers, resize, offset and padding, found by trying.

A network input is ``a * pixel + b`` per channel of a resized picture. `explain` looks for the resize, the order of the
channels and the least-squares ``a`` and ``b`` that give an input; two explanations side by side name the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any, get_args

import cv2
import numpy as np

from edgecv.core.contract import Color, InputContract, Interpolation, Resize
from edgecv.core.figures import Diagnosis
from edgecv.core.tensor import Array, FloatArray
from edgecv.vision.image import FILTERS, Geometry, Image, geometry

RUNG = "pre-processing"
EXACT = 0.003
"""Rest of a fit, as a share of the values' spread, that leaves nothing to explain."""
EXPLAINED = 0.05
"""Largest rest at which a fit still says where the values are from; a quantised input has its rounding in it."""
_PICTURES, _POSITIONS, _REACH = 3, 20_000, 2
_RANGES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (-0.5, 0.5), (-128.0, 127.0), (-127.5, 127.5))
_CROP_RATIOS = (0.875, 1.0, 0.95, 0.9, 0.8, 0.96, 0.965)


@dataclass(frozen=True)
class Variant:
    """How a picture was brought to size. ``shift`` is (down, right) in pixels beside where the contract puts it;
    ``grow`` (height, width) pixels that it is larger than the contract makes it."""

    resize: Resize
    interpolation: Interpolation
    crop_ratio: float
    shift: tuple[int, int] = (0, 0)
    grow: tuple[int, int] = (0, 0)

    def contract(self, contract: InputContract) -> InputContract:
        """``contract`` with this variant's settings."""
        return replace(contract, resize=self.resize, interpolation=self.interpolation, crop_ratio=self.crop_ratio)


@dataclass(frozen=True)
class Explanation:
    """Channel ``k`` of the input is ``scale[k] * pixel + offset[k]`` of the picture's channel ``order[k]``.

    ``order`` counts in the contract's channel order; ``pad`` is the pixel value of the padding, None where there
    is none; ``rest`` is what the fit leaves, as a share of the values' spread.
    """

    variant: Variant
    order: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    pad: float | None
    rest: float


@dataclass(frozen=True)
class _Fitted:
    """Pictures brought to size by one variant: `(N, C, H, W)` pixels, and where they lie `(N, H, W)`."""

    pixels: Array
    inside: Array
    places: tuple[Geometry, ...] = field(default=())


def diagnose_input(
    expected: FloatArray, fed: FloatArray, pictures: Sequence[Image], contract: InputContract
) -> tuple[Diagnosis, ...]:
    """Why the inputs ``fed`` differ from those ``expected``, both `(N, C, H, W)` real values of the ``pictures``.

    ``contract`` is what ``fed`` was made by; one diagnosis for each setting that differs.
    """
    if contract.clip is not None:  # every frame is prepared as a picture is
        one = (-1, contract.channels, *contract.size)
        expected, fed = expected.reshape(one), fed.reshape(one)
        pictures, contract = [frame for clip in pictures for frame in clip], contract.still
    count = min(_PICTURES, len(pictures))
    wanted = explain(expected[:count], pictures[:count], contract)
    found = explain(fed[:count], pictures[:count], contract)
    if wanted is None or found is None:
        lost = "the expected input" if wanted is None else "the engine's input"
        evidence = f"no resize, channel order, mean, std or range that is known here gives {lost}"
        return (Diagnosis(RUNG, "the network input is of another kind", "", "", evidence),)
    causes = [
        *_order(wanted, found, contract),
        *_geometry(wanted, found, contract, pictures[0]),
        *_numbers(wanted, found, contract),
        *_padding(wanted, found, contract),
    ]
    if not causes:
        text = f"both are explained alike; the rest is {found.rest:.1%} of the spread, expected {wanted.rest:.1%}"
        return (Diagnosis(RUNG, "single values of the network input differ", "", "", text),)
    return tuple(causes)


def explain(values: FloatArray, pictures: Sequence[Image], contract: InputContract) -> Explanation | None:
    """What made ``values`` `(N, C, H, W)` of the ``pictures``, looked for around ``contract``; None if nothing known.

    Of two explanations that leave the same rest the one nearer to the contract is taken.
    """
    own = Variant(contract.resize, contract.interpolation, contract.crop_ratio)
    best = _fit(values, pictures, contract, own)
    if best is not None and best.rest <= EXACT:
        return best
    for group in (_single_changes(own), _double_changes(own)):
        for variant in group:
            one = _fit(values, pictures, contract, variant)
            if one is not None and (best is None or one.rest < 0.9 * best.rest - EXACT / 10):
                best = one
        if best is not None and best.rest <= EXPLAINED / 2:
            break
    return best if best is not None and best.rest <= EXPLAINED else None


def _single_changes(own: Variant) -> Iterator[Variant]:
    steps = range(-_REACH, _REACH + 1)
    for shift in sorted(((down, right) for down in steps for right in steps), key=lambda at: abs(at[0]) + abs(at[1])):
        yield replace(own, shift=shift)
    for grow in ((-1, 0), (1, 0), (0, -1), (0, 1), (1, 1), (-1, -1)):
        yield replace(own, grow=grow)
    for name in get_args(Interpolation):
        yield replace(own, interpolation=name)
    for resize in get_args(Resize):
        for ratio in _CROP_RATIOS if resize == "crop" else (own.crop_ratio,):
            yield replace(own, resize=resize, crop_ratio=ratio)


def _double_changes(own: Variant) -> Iterator[Variant]:
    for resize in get_args(Resize):
        for ratio in _CROP_RATIOS if resize == "crop" else (own.crop_ratio,):
            for name in get_args(Interpolation):
                yield replace(own, resize=resize, crop_ratio=ratio, interpolation=name)
            for shift in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                yield replace(own, resize=resize, crop_ratio=ratio, shift=shift)


def _fit(
    values: FloatArray, pictures: Sequence[Image], contract: InputContract, variant: Variant
) -> Explanation | None:
    """The best order, scales and offsets for one variant; None where the picture leaves too few values."""
    fitted = _fitted(pictures, contract, variant)
    if fitted is None:
        return None
    kernel = np.ones((2 * _REACH + 3, 2 * _REACH + 3), np.uint8)
    deep = np.stack(
        [
            cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
            for mask in fitted.inside
        ]
    )
    where = np.flatnonzero(deep)
    if len(where) < 16:
        where = np.flatnonzero(fitted.inside)
    if len(where) < 16:
        return None
    if len(where) > _POSITIONS:
        where = np.random.default_rng(0).choice(where, _POSITIONS, replace=False)
    pixels = [fitted.pixels[:, channel].reshape(-1)[where].astype(np.float64) for channel in range(values.shape[1])]
    wanted = [values[:, channel].reshape(-1)[where].astype(np.float64) for channel in range(values.shape[1])]
    lines = [[_line(x, y) for x in pixels] for y in wanted]
    own = tuple(range(len(wanted)))
    order, rest = own, max(lines[k][k][2] for k in own)
    for other in permutations(own):
        left = max(lines[k][other[k]][2] for k in own)
        if left < 0.9 * rest - EXACT / 10:
            order, rest = other, left
    scale, offset = (tuple(lines[k][order[k]][part] for k in own) for part in (0, 1))
    return Explanation(variant, order, scale, offset, _pad_of(values, fitted, scale, offset), rest)


def _line(x: Array, y: Array) -> tuple[float, float, float]:
    """Least squares ``y = a x + b``: a, b, and the rest as a share of the spread of y."""
    spread, varied = float(y.std()), float(x.std())
    if varied == 0.0:
        return (0.0, float(y.mean()), 0.0 if spread == 0.0 else 1.0)
    a = float(((x - x.mean()) * (y - y.mean())).mean() / varied**2)
    b = float(y.mean() - a * x.mean())
    if spread == 0.0:
        return 0.0, b, 1.0
    return a, b, float(np.sqrt(np.mean((y - a * x - b) ** 2)) / spread)


def _pad_of(values: FloatArray, fitted: _Fitted, scale: Sequence[float], offset: Sequence[float]) -> float | None:
    """Pixel value of the padding, None where nothing is padded or the padding is not one value."""
    outside = fitted.inside == 0
    if int(outside.sum()) < 16 or not all(scale):
        return None
    found = [
        (float(np.median(values[:, channel][outside])) - offset[channel]) / scale[channel]
        for channel in range(values.shape[1])
    ]
    return float(np.mean(found))


def _fitted(pictures: Sequence[Image], contract: InputContract, variant: Variant) -> _Fitted | None:
    chosen, pixels, inside, places = variant.contract(contract), [], [], []
    for picture in pictures:
        place = geometry((picture.shape[0], picture.shape[1]), chosen)
        resized = (place.resized[0] + variant.grow[0], place.resized[1] + variant.grow[1])
        offset = (place.offset[0] + variant.shift[0], place.offset[1] + variant.shift[1])
        if min(resized) < 1:
            return None
        moved = Geometry(place.picture, place.size, resized, offset)
        one, mask = _placed(picture, chosen, moved)
        pixels.append(one)
        inside.append(mask)
        places.append(moved)
    return _Fitted(np.stack(pixels), np.stack(inside), tuple(places))


def _placed(picture: Image, contract: InputContract, place: Geometry) -> tuple[Array, Array]:
    """The picture at ``place``: `(C, H, W)` uint8 in the contract's channel order, and where it lies `(H, W)`."""
    found: Any = picture
    if contract.color == "gray" and found.ndim == 3:
        found = cv2.cvtColor(found, cv2.COLOR_BGR2GRAY)
    elif contract.color != "gray" and found.ndim == 2:
        found = cv2.cvtColor(found, cv2.COLOR_GRAY2BGR)
    if place.resized != place.picture:
        found = cv2.resize(found, place.resized[::-1], interpolation=FILTERS[contract.interpolation])
    planes = found[np.newaxis] if found.ndim == 2 else np.moveaxis(found, -1, 0)
    if contract.color == "rgb":
        planes = planes[::-1]
    height, width = place.size
    canvas, inside = np.zeros((len(planes), height, width), np.uint8), np.zeros((height, width), np.uint8)
    top, left = place.offset
    rows = slice(max(0, top), min(height, top + place.resized[0]))
    columns = slice(max(0, left), min(width, left + place.resized[1]))
    canvas[:, rows, columns] = planes[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    inside[rows, columns] = 1
    return canvas, inside


def _evidence(wanted: Explanation) -> str:
    return f"with it the expected input comes back; the fit leaves {wanted.rest:.2%} of the spread"


def _order(wanted: Explanation, found: Explanation, contract: InputContract) -> list[Diagnosis]:
    if wanted.order == found.order:
        return []
    return [
        Diagnosis(RUNG, "channel order", _order_name(found, contract), _order_name(wanted, contract), _evidence(wanted))
    ]


def _order_name(one: Explanation, contract: InputContract) -> str:
    names: Color = contract.color
    return "".join(names[channel] for channel in one.order)


def _geometry(wanted: Explanation, found: Explanation, contract: InputContract, first: Image) -> list[Diagnosis]:
    one, other, causes = found.variant, wanted.variant, []
    pairs: list[tuple[str, str, str]] = [
        ("resize", one.resize, other.resize),
        ("interpolation", one.interpolation, other.interpolation),
    ]
    if one.resize == other.resize == "crop":
        pairs.append(("crop_ratio", f"{one.crop_ratio:g}", f"{other.crop_ratio:g}"))
    if one.resize == other.resize:
        spots = [_spot(variant, contract, first) for variant in (one, other)]
        offset = f"{one.resize} offset (rows from the top, columns from the left)"
        pairs.append((offset, spots[0][0], spots[1][0]))
        pairs.append((f"{one.resize} size (height, width)", spots[0][1], spots[1][1]))
    for what, mine, theirs in pairs:
        if mine != theirs:
            causes.append(Diagnosis(RUNG, what, mine, theirs, _evidence(wanted)))
    return causes


def _spot(variant: Variant, contract: InputContract, picture: Image) -> tuple[str, str]:
    place = geometry((picture.shape[0], picture.shape[1]), variant.contract(contract))
    offset = (place.offset[0] + variant.shift[0], place.offset[1] + variant.shift[1])
    return str(offset), str((place.resized[0] + variant.grow[0], place.resized[1] + variant.grow[1]))


def _numbers(wanted: Explanation, found: Explanation, contract: InputContract) -> list[Diagnosis]:
    """Mean, std or range, whichever explains the scales and offsets with the fewest changes."""
    if _close(wanted, found.scale, found.offset):
        return []
    ranges = [_range_of(one, contract) for one in (found, wanted)]
    if ranges[0] is not None and ranges[1] is not None and ranges[0] != ranges[1]:
        return [Diagnosis(RUNG, "range", _listed(ranges[0]), _listed(ranges[1]), _evidence(wanted))]
    low, high = contract.range
    stds = [tuple((high - low) / (255 * a) if a else 0.0 for a in one.scale) for one in (found, wanted)]
    means = [
        tuple(low - b * std for b, std in zip(one.offset, spread, strict=True))
        for one, spread in zip((found, wanted), stds, strict=True)
    ]
    causes = []
    for what, (mine, theirs), told in (("mean", means, contract.mean), ("std", stds, contract.std)):
        reach = 0.004 * abs(high - low) if what == "mean" else 0.01 * max(map(abs, contract.std))
        if max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) > reach:
            same = all(abs(a - b) <= reach for a, b in zip(mine, told, strict=True))
            causes.append(Diagnosis(RUNG, what, _listed(told if same else mine), _listed(theirs), _evidence(wanted)))
    return causes


def _range_of(one: Explanation, contract: InputContract) -> tuple[float, float] | None:
    """The range that explains scales and offsets with the contract's mean and std."""
    for low, high in (contract.range, *_RANGES):
        scale = tuple((high - low) / (255 * std) for std in contract.std)
        offset = tuple((low - mean) / std for mean, std in zip(contract.mean, contract.std, strict=True))
        if _close(one, scale, offset):
            return low, high
    return None


def _close(one: Explanation, scale: Sequence[float], offset: Sequence[float]) -> bool:
    """Whether black and white come out alike, to a hundredth of the way between them."""
    for a, b, c, d in zip(one.scale, one.offset, scale, offset, strict=True):
        reach = 0.005 * max(abs(255 * a), abs(255 * c))
        if abs(b - d) > reach or abs(255 * a + b - 255 * c - d) > reach:
            return False
    return True


def _padding(wanted: Explanation, found: Explanation, contract: InputContract) -> list[Diagnosis]:
    if wanted.pad is None or found.pad is None or abs(wanted.pad - found.pad) < 1.5:
        return []
    told = contract.pad_value if abs(found.pad - contract.pad_value) < 1.5 else round(found.pad)
    return [Diagnosis(RUNG, "pad_value", str(told), str(round(wanted.pad)), _evidence(wanted))]


def _listed(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.4g}" if abs(value) > 1e-4 else "0" for value in values) + "]"
