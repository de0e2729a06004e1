"""`edgecv track`: follow the objects of a detections file, and hold the result against the truth."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from edgecv import track as trackers
from edgecv.commands.values import named_values
from edgecv.core.mot import MotTable, mot_line, read_mot
from edgecv.core.results import Detections
from edgecv.core.stream import Tracker
from edgecv.errors import UsageError
from edgecv.measure.tracking import tracking_figures


def track(options: argparse.Namespace) -> int:
    """Read detections, track them, write the result, print the metrics."""
    if options.fps <= 0:
        raise UsageError(f"--fps is {options.fps}; above 0 is needed")
    found = read_mot(options.detections)
    if options.tracker == "none":
        result = found
    else:
        tracker = trackers.make(options.tracker, named_values(options.set, "--set"), fps=options.fps)
        result = track_table(found, tracker, fps=options.fps)
    if options.out:
        lines = (
            mot_line(int(frame), int(number), box, float(score))
            for frame, number, box, score in zip(result.frames, result.ids, result.boxes, result.scores, strict=True)
        )
        Path(options.out).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    figures = tracking_figures(result, read_mot(options.eval)) if options.eval else None
    frames, tracks = int(result.frames.max(initial=0)), len(np.unique(result.ids))
    summary = {"frames": frames, "objects": len(result), "tracks": tracks}
    if options.json:
        print(json.dumps({**summary, "metrics": asdict(figures) if figures else None}))
        return 0
    print(f"{summary['objects']} boxes on {summary['tracks']} tracks in {summary['frames']} frames")
    if figures is not None:
        print(
            f"HOTA {figures.hota:.3f}  MOTA {figures.mota:.3f}  IDF1 {figures.idf1:.3f}  IDSW {figures.idsw}  "
            f"recall {figures.recall:.3f}  precision {figures.precision:.3f}"
        )
    return 0


def track_table(found: MotTable, tracker: Tracker, *, fps: float) -> MotTable:
    """Run ``tracker`` over all frames of a table of detections, frame n at ``n / fps`` seconds."""
    frames, ids, boxes, scores, classes = [], [], [], [], []
    for frame in range(1, int(found.frames.max(initial=0)) + 1):
        rows = slice(*np.searchsorted(found.frames, [frame, frame + 1]))
        given = Detections(
            found.boxes[rows].astype(np.float32),
            found.scores[rows].astype(np.float32),
            np.maximum(found.classes[rows], 0),
        )
        seen = tracker.update(given, frame / fps)
        assert seen.track_ids is not None  # the contract of Tracker
        frames.append(np.full(len(seen), frame, dtype=np.int64))
        ids.append(seen.track_ids)
        boxes.append(seen.boxes.astype(np.float64))
        scores.append(seen.scores.astype(np.float64))
        classes.append(seen.class_ids)
    if not frames:
        return found
    return MotTable(
        np.concatenate(frames),
        np.concatenate(ids),
        np.concatenate(boxes),
        np.concatenate(scores),
        np.concatenate(classes),
    )
