"""Signs of a real hand: five recordings of sign language, learnt from their beginnings and judged on their ends."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import cli
from tests.lines import ENGINES, Line, check_line, run_line

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("signs")]

SIGNS = ("again", "eat", "milk", "school", "thanks")
LONG = 30
"""Frames of a piece: a second."""
PIECES = 16
"""Pieces of each recording to learn from; what they show is moved and lit differently."""
JUDGED = 4


def pieces(video: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pieces of the first two thirds of where one may begin, and of the last quarter; `(LONG, 72, 96, 3)` each."""
    capture, frames = cv2.VideoCapture(str(video)), []
    while True:
        done, frame = capture.read()
        if not done:
            break
        frames.append(cv2.resize(frame, (96, 72), interpolation=cv2.INTER_AREA))
    last = len(frames) - LONG
    early = np.linspace(0, int(last * 0.66), PIECES).astype(int)
    late = np.linspace(np.ceil(last * 0.75), last, JUDGED).astype(int)
    return [np.stack(frames[start : start + LONG]) for start in early], [
        np.stack(frames[start : start + LONG]) for start in late
    ]


def changed(piece: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Moved by a few pixels, and darker or brighter."""
    across, down = random.integers(-6, 7, size=2)
    moved = np.array([[1, 0, across], [0, 1, down]], dtype=np.float32)
    light = random.uniform(0.8, 1.2)
    rows = [cv2.warpAffine(frame, moved, (96, 72), borderMode=cv2.BORDER_REPLICATE) for frame in piece]
    return np.clip(np.stack(rows) * light, 0, 255).astype(np.uint8)


def write(path: Path, piece: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (96, 72))
    for frame in piece:
        out.write(frame)
    out.release()


@pytest.fixture(scope="module")
def line(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp("signs")
    random = np.random.default_rng(0)
    for sign in SIGNS:
        early, late = pieces(shared_data / "videos/asl_gestures" / f"{sign}.mkv")
        for number, piece in enumerate(early):
            write(folder / "early" / sign / f"{number:02d}.avi", changed(piece, random))
        for number, piece in enumerate(late):
            write(folder / "late" / sign / f"{number:02d}.avi", changed(piece, random))
    learn = {"lr": 4.0e-3, "batch_size": 8, "augment": "crop", "validation": 0.1}
    return run_line(
        folder,
        {
            "model": {
                "source": "python:edgecv.models.reference_video:r2plus1d",
                "options": {"width": 8, "blocks": 3},
                "input": {
                    "size": [48, 64],
                    "mean": [0.5, 0.5, 0.5],
                    "std": [0.25, 0.25, 0.25],
                    "interpolation": "area",
                    "clip": {"frames": 6, "fps": 6},
                },
            },
            "family": {"kind": "video", "labels": [*SIGNS]},
            "data": {
                "train": {"kind": "videofolder", "path": "early"},
                "eval": {"kind": "videofolder", "path": "late"},
                "calibration": {"source": {"kind": "videofolder", "path": "early"}, "samples": 20},
            },
            "steps": [
                {"finetune": {**learn, "epochs": 40}},
                {"prune": {"importance": "magnitude", "ratio": 0.2, "round_to": 2}},
                {"finetune": {**learn, "epochs": 10, "lr": 2.0e-3}},
                {"quantize": {"method": "ptq", "scheme": "portable"}},
            ],
        },
    )


def test_ends_of_recordings_are_told_by_their_beginnings(line: Line) -> None:
    """20 pieces; a guess is right in 4 of them."""
    check_line(line)
    for target in ENGINES:
        accuracy = line.made(target).accuracy
        assert accuracy is not None
        assert accuracy.samples == len(SIGNS) * JUDGED
        assert accuracy.value >= 0.75


def test_the_loop_tells_the_signs_of_the_recordings(line: Line, shared_data: Path) -> None:
    """By what it says most often; one of the five may be wrong, a guess would be right once."""
    told = {}
    for sign in SIGNS:
        said = line.folder / f"{sign}.jsonl"
        video = shared_data / "videos/asl_gestures" / f"{sign}.mkv"
        words = ["run", "--model", str(line.folder / "out/host-onnxruntime"), "--camera", str(video), "--quiet"]
        assert cli.main([*words, "--policy", "every", "--sink", f"jsonl={said}"]) == 0
        frames = [json.loads(text) for text in said.read_text(encoding="utf-8").splitlines()]
        names = [frame["classes"][0]["label"] for frame in frames if frame.get("classes")]
        told[sign] = max(set(names), key=names.count)
    assert sum(sign == name for sign, name in told.items()) >= 4, told
