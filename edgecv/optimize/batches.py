"""Batches for training, pruning and calibration: a reader's pictures through the input contract.

Nothing holds the whole set: pictures are read when they are needed, and only as many prepared
arrays are kept as fit into ``cache_mb``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.protocols import Batches, MapTruth, PlacedTruth, PointTruth, Reader
from edgecv.core.tensor import Array, FloatArray
from edgecv.errors import DataError

__all__ = ["Augment", "EpochBatches", "make_batches", "split_indices"]

Augment = Literal["none", "crop", "crop-flip"]

_PAD_SHARE = 8
"""Random crops move by up to 1/8 of the picture's side, the usual 4 pixels of CIFAR's 32."""


@dataclass
class _Cache:
    """Prepared arrays by sample index, as many as fit into ``limit_bytes``; the rest is read again."""

    limit_bytes: int
    used_bytes: int = 0
    items: dict[int, tuple[FloatArray, Any]] = field(default_factory=dict)

    def keep(self, index: int, item: tuple[FloatArray, Any]) -> None:
        size = item[0].nbytes + (item[1].values.nbytes if isinstance(item[1], _Map) else 0)
        if index not in self.items and self.used_bytes + size <= self.limit_bytes:
            self.items[index] = item
            self.used_bytes += size


@dataclass(frozen=True)
class _Map:
    """A `MapTruth` over the network's input, `(H, W)`."""

    values: Array
    fill: float


@dataclass(frozen=True)
class EpochBatches:
    """Passes over a data set; calling it with an epoch's number (0, 1, ...) starts that pass.

    The same epoch always gives the same batches. Each batch is `(N, C, H, W)` float32 and its
    truths: an int64 array `(N,)` where the truths are integers, an array `(N, H, W)` of maps over the network's
    input where they are a `MapTruth`, otherwise a list, in pixels of the network's input where they are a `PointTruth`
    or a `PlacedTruth` (boxes).
    Both go through crops and flips with their pictures.
    """

    reader: Reader
    contract: InputContract
    indices: tuple[int, ...]
    batch_size: int
    shuffle_seed: int | None
    augment: Augment
    workers: int
    cache: _Cache = field(repr=False, compare=False)
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        """Samples of one pass in this process."""
        return len(range(self.rank, len(self.indices) - len(self.indices) % self.world, self.world))

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        full, rest = divmod(len(self), self.batch_size)
        return full + (1 if rest and not self._drops(rest) else 0)

    def share(self, rank: int, world: int) -> EpochBatches:
        """The part of process ``rank`` of ``world``; all parts have the same length."""
        return replace(self, rank=rank, world=world)

    def fixed(self, epoch: int = 0) -> Batches:
        """One epoch's pass as `Batches`, the same each time it is started."""
        return lambda: self(epoch)

    def __call__(self, epoch: int) -> Iterator[tuple[FloatArray, Any]]:
        order = self._order(epoch)
        starts = range(0, len(order), self.batch_size)
        groups = [order[start : start + self.batch_size] for start in starts]
        if groups and self._drops(len(groups[-1])):
            groups.pop()
        if self.workers == 0:
            for group in groups:
                yield _stack([self._sample(index, epoch) for index in group])
            return
        with ThreadPoolExecutor(self.workers) as pool:
            # One batch is prepared ahead while the caller works on the batch before it.
            ahead: Iterator[tuple[FloatArray, Any]] | None = None
            for group in groups:
                coming = pool.map(lambda index: self._sample(index, epoch), group)
                if ahead is not None:
                    yield _stack(list(ahead))
                ahead = coming
            if ahead is not None:
                yield _stack(list(ahead))

    def _drops(self, rest: int) -> bool:
        # Batch norm cannot train on one sample, so a training pass leaves a last single one out.
        return self.shuffle_seed is not None and rest == 1 and len(self) > self.batch_size

    def _order(self, epoch: int) -> list[int]:
        order = np.asarray(self.indices, dtype=np.int64)
        if self.shuffle_seed is not None:
            order = np.random.default_rng((self.shuffle_seed, epoch)).permutation(order)
        even = len(order) - len(order) % self.world
        return [int(index) for index in order[self.rank : even : self.world]]

    def _sample(self, index: int, epoch: int) -> tuple[FloatArray, Any]:
        item = self.cache.items.get(index)
        if item is None:
            from edgecv.vision.clips import picture_size
            from edgecv.vision.image import preprocess

            sample = self.reader[index]
            inputs = preprocess(sample.image, self.contract, layout="NCHW")
            item = (inputs, _placed(sample.truth, picture_size(sample.image), self.contract))
            self.cache.keep(index, item)
        if self.augment == "none":
            return item
        random = np.random.default_rng((self.shuffle_seed or 0, epoch, index))
        move = _drawn_move(item[0].shape[1:], flip=self.augment == "crop-flip", random=random)
        truth = item[1]
        if isinstance(truth, _Map):
            truth = replace(truth, values=_moved(truth.values, move, fill=truth.fill))
        elif isinstance(truth, PointTruth | PlacedTruth):
            truth = truth.moved(down=move.down, right=move.right, mirrored=move.mirrored)
        return _moved(item[0], move, fill=0.0), truth


def make_batches(
    reader: Reader,
    contract: InputContract,
    *,
    batch_size: int,
    shuffle_seed: int | None = None,
    augment: Augment = "none",
    indices: Sequence[int] | None = None,
    workers: int = 0,
    cache_mb: float = 256.0,
) -> EpochBatches:
    """Batches of ``reader``'s pictures as the network takes them.

    ``shuffle_seed`` set means another order each epoch (None: the reader's order); ``indices`` picks
    samples; ``workers`` threads prepare pictures ahead; prepared arrays are kept up to ``cache_mb``
    (10^6 bytes), so that small sets are read once.

    Raises:
        DataError: there is no sample to take.
    """
    chosen = tuple(range(len(reader))) if indices is None else tuple(int(index) for index in indices)
    if not chosen:
        raise DataError("the data set has no samples to make batches of; at least 1 is needed")
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}; it must be 1 or more")
    cache = _Cache(limit_bytes=int(cache_mb * 1e6))
    return EpochBatches(reader, contract, chosen, batch_size, shuffle_seed, augment, workers, cache)


def split_indices(truths: Sequence[Any], *, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split samples into ``(rest, held)`` with ``share`` (0..1) of each class held out, at random by ``seed``.

    ``truths`` are the samples' truths in order; where they are not integers there are no classes and
    the split is plainly random. Both parts are sorted; each has at least one sample.

    Raises:
        DataError: fewer than two samples.
    """
    if len(truths) < 2:
        raise DataError(f"{len(truths)} training samples; at least 2 are needed to hold some out for validation")
    classes: dict[Any, list[int]] = {}
    for index, truth in enumerate(truths):
        classes.setdefault(int(truth) if isinstance(truth, (int, np.integer)) else None, []).append(index)
    random = np.random.default_rng(seed)
    held: list[int] = []
    carry = 0.0
    for members in classes.values():
        # Shares of a sample are carried from class to class, so that small classes count as well.
        carry += len(members) * share
        count = min(int(carry), len(members) - 1)
        carry -= count
        held += [int(index) for index in random.permutation(members)[:count]]
    if not held:
        held = [int(random.integers(len(truths)))]
    chosen = set(held)
    return [index for index in range(len(truths)) if index not in chosen], sorted(held)


def _stack(items: list[tuple[FloatArray, Any]]) -> tuple[FloatArray, Any]:
    inputs = np.ascontiguousarray(np.stack([item[0] for item in items]), dtype=np.float32)
    truths = [item[1] for item in items]
    if all(isinstance(truth, (int, np.integer)) for truth in truths):
        return inputs, np.asarray(truths, dtype=np.int64)
    if all(isinstance(truth, _Map) for truth in truths):
        return inputs, np.stack([truth.values for truth in truths])
    return inputs, truths


def _placed(truth: Any, picture: tuple[int, int], contract: InputContract) -> Any:
    """The truth of a picture of (height, width) where the network sees it."""
    if isinstance(truth, MapTruth):
        return _Map(truth.to_network(contract), truth.fill)
    if isinstance(truth, PlacedTruth):
        from edgecv.vision.image import geometry

        return truth.placed(geometry(picture, contract), contract.size)
    return truth.to_network(contract) if isinstance(truth, PointTruth) else truth


@dataclass(frozen=True)
class _Move:
    """How a picture is moved: by so many pixels down and right (negative: up and left), then mirrored or not."""

    down: int
    right: int
    mirrored: bool


def _drawn_move(size: tuple[int, ...], *, flip: bool, random: np.random.Generator) -> _Move:
    """A random move by up to 1/8 of ``size`` (height, width), mirrored half of the time."""
    pad_y, pad_x = (max(1, length // _PAD_SHARE) for length in size)
    down, right = pad_y - int(random.integers(2 * pad_y + 1)), pad_x - int(random.integers(2 * pad_x + 1))
    return _Move(down, right, bool(flip and random.random() < 0.5))


def _moved(array: Array, move: _Move, *, fill: float) -> Array:
    """``array`` `(..., H, W)` moved as ``move`` says; ``fill`` comes in at the edges (0 is the mean colour)."""
    height, width = array.shape[-2:]
    out = np.full(array.shape, fill, dtype=array.dtype)
    rows = slice(max(0, move.down), height + min(0, move.down))
    columns = slice(max(0, move.right), width + min(0, move.right))
    from_rows = slice(max(0, -move.down), height + min(0, -move.down))
    from_columns = slice(max(0, -move.right), width + min(0, -move.right))
    out[..., rows, columns] = array[..., from_rows, from_columns]
    return np.ascontiguousarray(out[..., ::-1]) if move.mirrored else out
