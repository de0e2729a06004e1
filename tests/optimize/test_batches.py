"""Batches: order, shape, memory, augmentation, shares, splits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from edgecv.core.protocols import Sample
from edgecv.core.results import DetectionTruth
from edgecv.errors import DataError
from edgecv.optimize.batches import EpochBatches, Lessons, make_batches, split_indices
from edgecv.vision.image import preprocess

from .tiny_reader import CONTRACT, TinyReader


def make(count: int = 10, **options: Any) -> EpochBatches:
    return make_batches(TinyReader(count), CONTRACT, **{"batch_size": 4, **options})


def inputs_of(batches: EpochBatches, epoch: int = 0) -> np.ndarray:
    return np.concatenate([inputs for inputs, _ in batches(epoch)])


def truths_of(batches: EpochBatches, epoch: int = 0) -> list[int]:
    return [int(truth) for _, truths in batches(epoch) for truth in truths]


def test_pictures_go_through_the_contract_in_order() -> None:
    batches = make()
    parts = list(batches(0))
    assert [inputs.shape for inputs, _ in parts] == [(4, 1, 8, 8), (4, 1, 8, 8), (2, 1, 8, 8)]
    assert batches.steps == 3
    assert len(batches) == 10
    assert all(inputs.dtype == np.float32 and truths.dtype == np.int64 for inputs, truths in parts)
    expected = [preprocess(TinyReader()[index].image, CONTRACT, layout="NCHW") for index in range(10)]
    assert np.array_equal(inputs_of(batches), np.stack(expected))
    assert truths_of(batches) == [index % 3 for index in range(10)]


def test_truths_that_are_no_integers_stay_a_list() -> None:
    class Named(TinyReader):
        def __getitem__(self, index: int) -> Sample:
            return dataclasses.replace(super().__getitem__(index), truth="left")

    _, truths = next(make_batches(Named(4), CONTRACT, batch_size=2)(0))
    assert truths == ["left", "left"]


def test_each_epoch_has_its_own_order_and_always_the_same() -> None:
    one, again = make(30, shuffle_seed=1), make(30, shuffle_seed=1)
    orders = [truths_of(one, epoch) for epoch in range(3)]
    assert orders == [truths_of(again, epoch) for epoch in range(3)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert truths_of(make(30, shuffle_seed=2)) != orders[0]


def test_a_last_single_sample_is_left_out_of_training_only() -> None:
    training, evaluation = make(9, shuffle_seed=0), make(9)
    assert [len(truths) for _, truths in training(0)] == [4, 4]
    assert training.steps == 2
    assert evaluation.steps == 3
    assert len(truths_of(evaluation)) == 9
    assert make(1, shuffle_seed=0).steps == 1


def test_prepared_pictures_are_kept_up_to_the_limit() -> None:
    reader = TinyReader(10)
    batches = make_batches(reader, CONTRACT, batch_size=4, cache_mb=6 * 256 / 1e6)
    list(batches(0))
    assert len(reader.reads) == 10
    list(batches(1))
    assert reader.reads[10:] == [6, 7, 8, 9]


def test_workers_give_the_same_batches() -> None:
    plain = make(10, shuffle_seed=3, augment="crop-flip")
    threaded = make(10, shuffle_seed=3, augment="crop-flip", workers=3)
    assert np.array_equal(inputs_of(plain, 2), inputs_of(threaded, 2))
    assert truths_of(plain, 2) == truths_of(threaded, 2)


@pytest.mark.parametrize("augment", ["crop", "crop-flip"])
def test_augmentation_moves_by_an_eighth_and_changes_each_epoch(augment: str) -> None:
    plain, changed = make(augment="none"), make(augment=augment, shuffle_seed=None)
    first, second = inputs_of(changed, 0), inputs_of(changed, 1)
    assert first.shape == (10, 1, 8, 8)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, inputs_of(changed, 0))
    for picture, original in zip(first[:, 0], inputs_of(plain)[:, 0], strict=True):
        padded = np.pad(original, 1)
        windows = [padded[top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
        if augment == "crop-flip":
            windows += [window[:, ::-1] for window in windows]
        assert any(np.array_equal(picture, window) for window in windows)


def test_boxes_move_with_their_picture() -> None:
    """A bright block on black: wherever augmentation moves it, its box is where it is."""

    class Blocks(TinyReader):
        def __getitem__(self, index: int) -> Sample:
            image = np.zeros((16, 16), np.uint8)
            image[4:10, 6:12] = 255
            truth = DetectionTruth(np.array([[6, 4, 12, 10]], np.float32), np.zeros(1, np.int64))
            return dataclasses.replace(super().__getitem__(index), image=image, truth=truth)

    contract = dataclasses.replace(CONTRACT, size=(16, 16))
    batches = make_batches(Blocks(8), contract, batch_size=4, shuffle_seed=0, augment="crop-flip")
    seen = set()
    for inputs, truths in (batch for epoch in range(3) for batch in batches(epoch)):
        for picture, truth in zip(inputs, truths, strict=True):
            rows, columns = np.nonzero(picture[0] == picture.max())
            wanted = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert tuple(truth.boxes[0]) == wanted
            assert truth.size == (16, 16)
            seen.add(wanted)
    assert len(seen) > 5


def test_processes_share_an_epoch_evenly() -> None:
    whole = make(11, shuffle_seed=5)
    parts = [whole.share(rank, 2) for rank in range(2)]
    assert [len(part) for part in parts] == [5, 5]
    together = np.concatenate([inputs_of(part) for part in parts])
    everything = inputs_of(make(11))
    positions = [int(np.flatnonzero((everything == picture).all(axis=(1, 2, 3)))[0]) for picture in together]
    assert len(set(positions)) == len(positions)


def test_batches_hold_several_samples_of_a_class() -> None:
    count = 30
    classes = [index % 3 if index < 27 else 3 for index in range(count)]
    batches = make(count, batch_size=4, shuffle_seed=5).by_class(classes, 2)
    seen = []
    for epoch in (0, 1):
        order = batches._order(epoch)
        assert sorted(order) == list(range(count))
        # Nine samples of three classes and three of the last: one of each is left over.
        alone = sum(
            classes[order[place]] not in (classes[order[place - 1]], classes[order[(place + 1) % count]])
            for place in range(count)
        )
        assert alone <= 4
        seen.append(order)
    assert seen[0] != seen[1]
    halves = [batches.share(rank, 2)._order(0) for rank in (0, 1)]
    assert sorted(halves[0] + halves[1]) == list(range(count))
    assert sum(classes[one] == classes[other] for one, other in zip(*halves, strict=True)) >= 11


def test_fixed_repeats_one_epoch() -> None:
    start = make(10, shuffle_seed=1).fixed(2)
    assert np.array_equal(next(start())[0], next(start())[0])


def test_pictures_without_truths_come_behind_each_batch_and_all_before_one_comes_again() -> None:
    reader = TinyReader(7)
    extra = make_batches(reader, CONTRACT, batch_size=4, shuffle_seed=3, cache_mb=0)
    lessons = Lessons(make(10), extra)
    parts = [part for epoch in range(2) for part in lessons(epoch)]
    assert [(len(inputs), len(truths)) for inputs, truths in parts] == [(8, 4), (8, 4), (4, 2)] * 2
    assert np.array_equal(np.concatenate([inputs[: len(truths)] for inputs, truths in parts[:3]]), inputs_of(make(10)))
    assert sorted(reader.reads[:7]) == sorted(reader.reads[7:14]) == list(range(7))
    assert len(reader.reads) == 20
    assert Lessons(make(10)).steps == lessons.steps == 3


def test_every_process_has_its_own_pictures_without_truths() -> None:
    readers = [TinyReader(8), TinyReader(8)]
    for rank, reader in enumerate(readers):
        extra = make_batches(reader, CONTRACT, batch_size=4, shuffle_seed=3)
        list(Lessons(make(8, shuffle_seed=0), extra).share(rank, 2)(0))
    assert set(readers[0].reads).isdisjoint(readers[1].reads)


def test_no_samples() -> None:
    with pytest.raises(DataError, match="no samples"):
        make(10, indices=[])
    with pytest.raises(DataError, match="batch_size is 0"):
        make(10, batch_size=0)


def test_split_takes_the_share_of_every_class() -> None:
    truths = [0] * 50 + [1] * 30 + [2] * 20
    rest, held = split_indices(truths, share=0.1, seed=0)
    assert sorted(rest + held) == list(range(100))
    assert [sum(truths[index] == label for index in held) for label in range(3)] == [5, 3, 2]
    assert split_indices(truths, share=0.1, seed=0) == (rest, held)
    assert split_indices(truths, share=0.1, seed=1)[1] != held


def test_split_of_many_small_classes_and_of_truths_without_classes() -> None:
    rest, held = split_indices([label for label in range(20) for _ in range(3)], share=0.1, seed=0)
    assert len(held) == 6
    assert len(rest) == 54
    assert len(split_indices([["box"], ["box"], ["box"], ["box"]], share=0.5, seed=0)[1]) == 2
    assert len(split_indices([0, 1], share=0.01, seed=0)[1]) == 1
    with pytest.raises(DataError, match="at least 2"):
        split_indices([0], share=0.5, seed=0)
