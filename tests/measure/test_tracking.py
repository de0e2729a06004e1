"""Tracking metrics: published values, and the counts of CLEAR MOT without TrackEval."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.mot import MotTable, read_mot
from edgecv.core.results import Detections
from edgecv.errors import DataError
from edgecv.measure.clear import ClearMot
from edgecv.measure.tracking import tracking_figures

needs_metrics = pytest.mark.skipif(
    importlib.util.find_spec("trackeval") is None, reason="TrackEval is not part of the device half"
)


@needs_metrics
def test_published_values_of_a_tracker_output(shared_data: Path) -> None:
    folder = shared_data / "mot" / "TUD-Campus"
    figures = tracking_figures(read_mot(folder / "hyp/cem.txt"), read_mot(folder / "gt/gt.txt"))
    rounded = [round(100 * value, 1) for value in (figures.idf1, figures.idp, figures.idr, figures.mota, figures.motp)]
    assert rounded == [55.8, 73.0, 45.1, 52.6, 72.3]
    assert (figures.tracks, figures.mostly_tracked, figures.mostly_lost) == (8, 1, 1)
    assert (figures.false_positives, figures.false_negatives, figures.idsw, figures.fragments) == (13, 150, 7, 7)


@needs_metrics
def test_counting_by_frame_gives_the_same_mota(shared_data: Path) -> None:
    folder = shared_data / "mot" / "TUD-Campus"
    result, truth = read_mot(folder / "hyp/cem.txt"), read_mot(folder / "gt/gt.txt")
    count = ClearMot()
    for frame in range(1, 72):
        mine, real = result.select(result.frames == frame), truth.select(truth.frames == frame)
        scores, classes = np.ones(len(mine), np.float32), np.zeros(len(mine), np.int64)
        count.update(Detections(mine.boxes.astype(np.float32), scores, classes, (), mine.ids), real.boxes, real.ids)
    figures = tracking_figures(result, truth)
    assert count.mota == pytest.approx(figures.mota, abs=0.003)
    assert count.false_positives == figures.false_positives
    assert count.switches == figures.idsw


def test_a_result_on_an_ignored_object_counts_neither_way() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [90, 0, 99, 9]], dtype=np.float32)
    found = Detections(boxes, np.ones(3, np.float32), np.zeros(3, np.int64), (), np.array([1, 2, 3]))
    count = ClearMot()
    count.update(found, boxes[:1], np.array([7]), boxes[1:2])
    assert (count.matches, count.false_positives) == (1, 1)
    assert count.mota == 0.0


@needs_metrics
def test_wrong_tables() -> None:
    one = np.array([1, 1])
    table = MotTable(one, one, np.zeros((2, 4)), np.ones(2), one)
    with pytest.raises(DataError, match="frame 1: an id stands twice"):
        tracking_figures(table, table)
    none = MotTable(*(np.zeros((0, 4)) if index == 2 else np.zeros(0, np.int64) for index in range(5)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="holds no object"):
        tracking_figures(table, none)
