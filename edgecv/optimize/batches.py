"""Batches for training, pruning and calibration: a reader's pictures through the input contract.

Nothing holds the whole set: pictures are read when they are needed, and only as many prepared
arrays are kept as fit into ``cache_mb``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.protocols import Batches, MapTruth, PlacedTruth, PointTruth, Reader
from edgecv.core.steps import Augment, AugmentName, augment_of
from edgecv.core.tensor import FloatArray
from edgecv.errors import DataError
from edgecv.optimize.augment import FlatMap, changed, mosaic

__all__ = ["EpochBatches", "Lessons", "make_batches", "split_indices"]


@dataclass
class _Cache:
    """Prepared arrays by sample index, as many as fit into ``limit_bytes``; the rest is read again."""

    limit_bytes: int
    used_bytes: int = 0
    items: dict[int, tuple[FloatArray, Any]] = field(default_factory=dict)

    def keep(self, index: int, item: tuple[FloatArray, Any]) -> None:
        size = item[0].nbytes + (item[1].values.nbytes if isinstance(item[1], FlatMap) else 0)
        if index not in self.items and self.used_bytes + size <= self.limit_bytes:
            self.items[index] = item
            self.used_bytes += size


@dataclass(frozen=True)
class EpochBatches:
    """Passes over a data set; calling it with an epoch's number (0, 1, ...) starts that pass.

    The same epoch always gives the same batches. Each batch is `(N, C, H, W)` float32 and its
    truths: an int64 array `(N,)` where the truths are integers, an array `(N, H, W)` of maps over the network's
    input where they are a `MapTruth`, otherwise a list, in pixels of the network's input where they are a `PointTruth`
    or a `PlacedTruth` (boxes).
    They change with their pictures where ``augment`` says so (`edgecv.optimize.augment`). ``classes``, one for each of
    ``indices``, brings ``together`` samples of a class into each batch, so that pairs can be learned from.
    """

    reader: Reader
    contract: InputContract
    indices: tuple[int, ...]
    batch_size: int
    shuffle_seed: int | None
    augment: Augment | None
    workers: int
    cache: _Cache = field(repr=False, compare=False)
    rank: int = 0
    world: int = 1
    classes: tuple[int, ...] | None = None
    together: int = 1

    def __len__(self) -> int:
        """Samples of one pass in this process."""
        return len(range(self.rank, len(self.indices) - len(self.indices) % self.world, self.world))

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        full, rest = divmod(len(self), self.batch_size)
        return full + (1 if rest and not self._drops(rest) else 0)

    def by_class(self, classes: Sequence[int], together: int) -> EpochBatches:
        """The same samples, whose ``classes`` these are, with so many of a class in a row where it has them."""
        return replace(self, classes=tuple(int(item) for item in classes), together=together)

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

    def stream(self, epoch: int, count: int) -> Iterator[FloatArray]:
        """Pictures `(C, H, W)` one by one, for the ``count`` steps of an epoch beside another set's samples.

        Each epoch goes on where the one before ended, so that all pictures are seen before one comes again.
        """
        turn, order = -1, list[int]()
        for place in range(epoch * count, (epoch + 1) * count):
            if place // len(self) != turn:
                turn = place // len(self)
                order = self._order(turn)
            yield self._sample(order[place % len(self)], turn)[0]

    def _drops(self, rest: int) -> bool:
        # Batch norm cannot train on one sample, so a training pass leaves a last single one out.
        return self.shuffle_seed is not None and rest == 1 and len(self) > self.batch_size

    def _order(self, epoch: int) -> list[int]:
        order = np.asarray(self.indices, dtype=np.int64)
        if self.shuffle_seed is not None:
            random = np.random.default_rng((self.shuffle_seed, epoch))
            order = random.permutation(order) if self.classes is None else self._by_class(order, random)
        even = len(order) - len(order) % self.world
        return [int(index) for index in order[self.rank : even : self.world]]

    def _by_class(self, order: npt.NDArray[np.int64], random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Every sample once, so many of a class in a row, in random order otherwise."""
        classes = np.asarray(self.classes)
        row = self.together * self.world
        parts: list[npt.NDArray[np.int64]] = []
        for name in np.unique(classes):
            members = random.permutation(order[classes == name])
            parts += [members[start : start + row] for start in range(0, len(members), row)]
        return np.concatenate([parts[place] for place in random.permutation(len(parts))])

    def _sample(self, index: int, epoch: int) -> tuple[FloatArray, Any]:
        item = self._prepared(index)
        if self.augment is None:
            return item
        random = np.random.default_rng((self.shuffle_seed or 0, epoch, index))
        if self.augment.mosaic > 0 and random.random() < self.augment.mosaic:
            return mosaic(item, lambda: self._prepared(self._any(random)), self.augment, self.contract, random)
        return changed(item, self.augment, self.contract, random)

    def _any(self, random: np.random.Generator) -> int:
        return self.indices[int(random.integers(len(self.indices)))]

    def _prepared(self, index: int) -> tuple[FloatArray, Any]:
        """Sample ``index`` as the network takes it, before any change."""
        item = self.cache.items.get(index)
        if item is None:
            from edgecv.vision.clips import picture_size
            from edgecv.vision.image import preprocess

            sample = self.reader[index]
            inputs = preprocess(sample.image, self.contract, layout="NCHW")
            item = (inputs, _placed(sample.truth, picture_size(sample.image), self.contract))
            self.cache.keep(index, item)
        return item


@dataclass(frozen=True)
class Lessons:
    """The batches of ``train``, each with as many pictures of ``extra`` behind its own, for which there are no truths.

    Calling it with an epoch's number starts that pass.
    """

    train: EpochBatches
    extra: EpochBatches | None = None

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        return self.train.steps

    def share(self, rank: int, world: int) -> Lessons:
        """The part of process ``rank`` of ``world``; all parts have the same length."""
        extra = None if self.extra is None else self.extra.share(rank, world)
        return Lessons(self.train.share(rank, world), extra)

    def __call__(self, epoch: int) -> Iterator[tuple[FloatArray, Any]]:
        if self.extra is None:
            yield from self.train(epoch)
            return
        more = self.extra.stream(epoch, len(self.train))
        for inputs, truths in self.train(epoch):
            yield np.stack([*inputs, *islice(more, len(inputs))]), truths


def make_batches(
    reader: Reader,
    contract: InputContract,
    *,
    batch_size: int,
    shuffle_seed: int | None = None,
    augment: AugmentName | Augment = "none",
    indices: Sequence[int] | None = None,
    workers: int = 0,
    cache_mb: float = 256.0,
) -> EpochBatches:
    """Batches of ``reader``'s pictures as the network takes them.

    ``shuffle_seed`` set means another order each epoch (None: the reader's order); ``indices`` picks
    samples; ``augment`` says how pictures change; ``workers`` threads prepare pictures ahead; prepared
    arrays are kept up to ``cache_mb`` (10^6 bytes), so that small sets are read once.

    Raises:
        DataError: there is no sample to take.
    """
    chosen = tuple(range(len(reader))) if indices is None else tuple(int(index) for index in indices)
    if not chosen:
        raise DataError("the data set has no samples to make batches of; at least 1 is needed")
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}; it must be 1 or more")
    cache = _Cache(limit_bytes=int(cache_mb * 1e6))
    return EpochBatches(reader, contract, chosen, batch_size, shuffle_seed, augment_of(augment), workers, cache)


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
    if all(isinstance(truth, FlatMap) for truth in truths):
        return inputs, np.stack([truth.values for truth in truths])
    return inputs, truths


def _placed(truth: Any, picture: tuple[int, int], contract: InputContract) -> Any:
    """The truth of a picture of (height, width) where the network sees it."""
    if isinstance(truth, MapTruth):
        return FlatMap(truth.to_network(contract), truth.fill)
    if isinstance(truth, PlacedTruth):
        from edgecv.vision.image import geometry

        return truth.placed(geometry(picture, contract), contract.size)
    return truth.to_network(contract) if isinstance(truth, PointTruth) else truth
