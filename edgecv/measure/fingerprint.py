"""A model file's contents in a few bytes a tensor, so that it can be told later what about them changed.

Written beside the golden pictures when a file is proven; values themselves are only kept of very small tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np

from edgecv.backends.contents import Contents
from edgecv.core.plain import PlainError, from_plain, to_plain
from edgecv.core.tensor import Array
from edgecv.errors import ArtifactError

VERSION = 1
MAX_BYTES = 64 * 1024 * 1024
_SAMPLES = 32
_MAX_AXES = 4


@dataclass(frozen=True)
class TensorPrint:
    """``sha256`` is of the values in order (16 hex digits), ``sorted`` of the values without their order, ``slices``
    of the slices along each axis without their order; ``samples`` are up to 32 of the values at even steps."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str
    sorted: str
    slices: tuple[str, ...]
    samples: tuple[float, ...]


@dataclass(frozen=True)
class ScalePrint:
    """Scales and zero points of one tensor: hash of all, and up to 32 of the values."""

    sha256: str
    count: int
    scale: tuple[float, ...]
    zero_point: tuple[float, ...]


@dataclass(frozen=True)
class LayerPrint:
    """What a layer gave for the first golden picture: up to 32 of its values at even steps."""

    shape: tuple[int, ...]
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Fingerprint:
    """All that is kept of a model file's contents, by name, in the order of the graph."""

    version: int
    weights: dict[str, TensorPrint]
    scales: dict[str, ScalePrint]
    operators: dict[str, str]
    layers: dict[str, LayerPrint]


def fingerprint(contents: Contents, layers: Mapping[str, Array]) -> Fingerprint:
    """The prints of a model file's ``contents`` and of what its ``layers`` gave for the first golden picture."""
    return Fingerprint(
        VERSION,
        {name: tensor_print(value) for name, value in contents.weights.items()},
        {name: scale_print(scale, zero) for name, (scale, zero) in contents.scales.items()},
        dict(contents.operators),
        {name: LayerPrint(value.shape, _samples(value)) for name, value in layers.items()},
    )


def tensor_print(value: Array) -> TensorPrint:
    """The print of one constant."""
    axes = range(min(value.ndim, _MAX_AXES)) if value.size > 1 else range(0)
    slices = tuple(
        _hash(sorted(np.ascontiguousarray(part).tobytes() for part in np.moveaxis(value, axis, 0))) for axis in axes
    )
    ordered = _hash([np.sort(value, axis=None).tobytes()])
    return TensorPrint(value.shape, value.dtype.name, value_hash(value), ordered, slices, _samples(value))


def scale_print(scale: Array, zero_point: Array) -> ScalePrint:
    """The print of a tensor's scales and zero points."""
    scales, zeros = (np.asarray(item, dtype=np.float64).ravel() for item in (scale, zero_point))
    digest = _hash([scales.astype(np.float32).tobytes(), zeros.astype(np.float32).tobytes()])
    return ScalePrint(digest, scales.size, _samples(scales), _samples(zeros))


def value_hash(value: Array) -> str:
    """Hash of the values in order, 16 hex digits."""
    return _hash([np.ascontiguousarray(value).tobytes()])


def change_of(recorded: TensorPrint, found: Array) -> str:
    """In words, how ``found`` came from what was ``recorded``: transposed, reversed, permuted, scaled, ...

    Both have the same number of values; "" where they are equal.
    """
    if value_hash(found) == recorded.sha256 and found.shape == recorded.shape:
        return ""
    for words, undo in _moves(found, recorded.shape):
        if value_hash(undo()) == recorded.sha256:
            return words
    if found.shape == recorded.shape:
        again = tensor_print(found)
        for axis, (one, other) in enumerate(zip(again.slices, recorded.slices, strict=True)):
            if one == other and found.shape[axis] > 1:
                return f"its slices along axis {axis} are in another order"
        if again.sorted == recorded.sorted:
            return "its values are in another order"
        return _numeric(recorded.samples, again.samples)
    return f"its shape is {found.shape}"


def same_samples(recorded: tuple[float, ...], found: Array) -> float:
    """Signal to noise in dB of a layer's values against those recorded; inf where equal, -inf where not finite."""
    one, other = np.array(recorded), np.array(_samples(found))
    if one.shape != other.shape or not np.isfinite(other).all():
        return float("-inf")
    noise, signal = float(((one - other) ** 2).sum()), float((one**2).sum())
    if noise == 0.0:
        return float("inf")
    return float("-inf") if signal == 0.0 else float(10 * np.log10(signal / noise))


def write_fingerprint(path: Path, value: Fingerprint) -> None:
    """Write a fingerprint as JSON."""
    path.write_text(json.dumps(to_plain(value), separators=(",", ":")) + "\n", encoding="utf-8")


def read_fingerprint(path: Path) -> Fingerprint:
    """Read what `write_fingerprint` wrote.

    Raises:
        ArtifactError: the file is missing, corrupt, or of another version.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtifactError(f"{path} has {path.stat().st_size} bytes; allowed are {MAX_BYTES}")
        raw = json.loads(path.read_text(encoding="utf-8"))
        found = from_plain(Fingerprint, raw, "contents")
    except (OSError, ValueError, PlainError, RecursionError) as error:
        raise ArtifactError(f"{path} is corrupt ({error}); build the artifact again") from error
    if found.version != VERSION:
        raise ArtifactError(f"{path} has version {found.version}; this edgecv reads {VERSION}")
    return found


def _moves(found: Array, shape: tuple[int, ...]) -> Iterable[tuple[str, Callable[[], Array]]]:
    """Ways in which a tensor's values are moved by mistake, each with what would undo it."""
    axes = tuple(range(found.ndim))
    if 2 <= found.ndim <= _MAX_AXES:
        for order in permutations(axes):
            if order == axes:
                continue
            words = f"it is transposed (its axes stand as {list(order)})" if found.ndim > 2 else "it is transposed"
            moved = tuple(shape[axis] for axis in order) if len(shape) == found.ndim else ()
            back = tuple(int(axis) for axis in np.argsort(order))
            if moved and int(np.prod(moved)) == found.size:
                # The values lie as those of the transposed tensor, whatever shape the file gives them.
                yield words, partial(_untransposed, found, moved, back)
    for axis in axes:
        name = " (as RGB for BGR)" if found.shape[axis] == 3 else ""
        yield f"its axis {axis} is reversed{name}", partial(np.flip, found, axis)
    if found.shape != shape and found.size == int(np.prod(shape)):
        yield f"its shape is {found.shape} and not {shape}", partial(np.reshape, found, shape)


def _untransposed(found: Array, moved: tuple[int, ...], back: tuple[int, ...]) -> Array:
    return found.reshape(moved).transpose(back)


def _numeric(recorded: tuple[float, ...], found: tuple[float, ...]) -> str:
    one, other = np.array(recorded), np.array(found)
    if not other.any():
        return "its values are 0"
    some = one != 0
    if some.any():
        ratios = other[some] / one[some]
        ratio = float(np.median(ratios))
        if np.allclose(ratios, ratio, rtol=1e-3, atol=1e-6) and abs(ratio - 1) > 1e-4:
            return f"it is multiplied by {ratio:.4g}"
    steps = other - one
    if np.allclose(steps, steps[0], rtol=1e-3, atol=1e-6 * float(np.abs(one).max(initial=1.0))) and steps[0] != 0:
        return f"{steps[0]:.4g} is added to it"
    return f"{int((one != other).sum())} of {one.size} values looked at are others"


def _samples(value: Array) -> tuple[float, ...]:
    flat = np.asarray(value).ravel()
    if flat.size > _SAMPLES:
        flat = flat[np.linspace(0, flat.size - 1, _SAMPLES).round().astype(np.int64)]
    return tuple(float(item) for item in flat)


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:16]
