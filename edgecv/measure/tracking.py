"""How well objects were followed: HOTA, CLEAR MOT and identity metrics, computed by TrackEval."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.core.mot import MotTable
from edgecv.errors import DataError, ToolchainError
from edgecv.vision.boxes import iou


@dataclass(frozen=True)
class TrackingFigures:
    """Metrics of one sequence. Shares are 0..1 (MOTA may be below 0); counts are of boxes, changes of id and tracks.

    ``hota``, ``deta``, ``assa``: J. Luiten et al., IJCV 2021. ``mota``, ``motp``, ``idsw``, ...: K. Bernardin and
    R. Stiefelhagen, 2008, at an overlap of 0.5. ``idf1``, ``idp``, ``idr``: E. Ristani et al., 2016.
    """

    hota: float
    deta: float
    assa: float
    mota: float
    motp: float
    idf1: float
    idp: float
    idr: float
    recall: float
    precision: float
    idsw: int
    fragments: int
    false_positives: int
    false_negatives: int
    tracks: int
    mostly_tracked: int
    mostly_lost: int
    frames: int


def tracking_figures(found: MotTable, truth: MotTable) -> TrackingFigures:
    """Hold tracked objects against the truth of the same sequence.

    Raises:
        DataError: there is no truth, or an id stands twice in a frame.
        ToolchainError: TrackEval is not installed.
    """
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ModuleNotFoundError as error:
        raise ToolchainError(f"{error.name} is not installed: pip install 'edgecv[track-eval]'") from error
    if not len(truth):
        raise DataError("the ground truth holds no object; nothing can be held against it")
    data = _sequence(found, truth)
    with contextlib.redirect_stdout(io.StringIO()):
        config = {"PRINT_CONFIG": False}
        hota = HOTA().eval_sequence(data)
        clear = CLEAR(config).eval_sequence(data)
        identity = Identity(config).eval_sequence(data)
    clear = CLEAR._compute_final_fields(clear)
    identity = Identity._compute_final_fields(identity)
    return TrackingFigures(
        hota=float(np.mean(hota["HOTA"])),
        deta=float(np.mean(hota["DetA"])),
        assa=float(np.mean(hota["AssA"])),
        mota=float(clear["MOTA"]),
        motp=float(clear["MOTP"]),
        idf1=float(identity["IDF1"]),
        idp=float(identity["IDP"]),
        idr=float(identity["IDR"]),
        recall=float(clear["CLR_Re"]),
        precision=float(clear["CLR_Pr"]),
        idsw=int(clear["IDSW"]),
        fragments=int(clear["Frag"]),
        false_positives=int(clear["CLR_FP"]),
        false_negatives=int(clear["CLR_FN"]),
        tracks=int(data["num_gt_ids"]),
        mostly_tracked=int(clear["MT"]),
        mostly_lost=int(clear["ML"]),
        frames=int(data["num_timesteps"]),
    )


def _sequence(found: MotTable, truth: MotTable) -> dict[str, Any]:
    """What TrackEval's metrics take: ids from 0 without gaps and overlaps, frame by frame."""
    last = int(max(found.frames.max(initial=0), truth.frames.max()))
    truth_names, truth_ids = np.unique(truth.ids, return_inverse=True)
    found_names, found_ids = np.unique(found.ids, return_inverse=True)
    sides: dict[str, list[Any]] = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for frame in range(1, last + 1):
        ours = slice(*np.searchsorted(found.frames, [frame, frame + 1]))
        real = slice(*np.searchsorted(truth.frames, [frame, frame + 1]))
        for name, ids in (("a result", found_ids[ours]), ("the ground truth", truth_ids[real])):
            if len(np.unique(ids)) != len(ids):
                raise DataError(f"frame {frame}: an id stands twice in {name}; each object has one id")
        sides["gt_ids"].append(truth_ids[real])
        sides["tracker_ids"].append(found_ids[ours])
        sides["similarity_scores"].append(iou(truth.boxes[real], found.boxes[ours]).astype(np.float64))
    return {
        **sides,
        "num_timesteps": last,
        "num_gt_ids": len(truth_names),
        "num_tracker_ids": len(found_names),
        "num_gt_dets": len(truth),
        "num_tracker_dets": len(found),
    }
