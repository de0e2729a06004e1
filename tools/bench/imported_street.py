"""Persons of a street video, cut out and followed, for networks that know them again."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from imported_parts import YOLOX, YOLOX_WORDS, Place, answers, both, coco_names, command, evaluated

FRAMES = 101
"""So much of the street video is looked at."""


def walkers(place: Place) -> list[dict[str, Any]]:
    """Persons of a street video, cut out: file, track and frame of each, and a csv of identities beside them.

    Two pictures of a track are 5 frames apart; the first is the query, the second in the gallery. The tracks are ours.
    """
    import cv2

    from edgecv.runtime.session import open_session
    from edgecv.runtime.spec import PipelineSpec
    from edgecv.vision.crops import crop

    detector, found = place.scratch / "detector", []
    words = both(coco_names, f"{YOLOX_WORDS} --score 0.5")(place)
    command("import", str(place.data / "models" / YOLOX), "--out", str(detector), "--family", "detection", *words)
    video = place.data / "videos/people-corridor.mp4"
    spec = PipelineSpec(camera=str(video), detect=(str(detector),), track="bytetrack", frames=FRAMES, threads=1)
    with open_session(spec) as session:
        for item in session:
            for row, (box, label) in enumerate(zip(item.result.boxes, item.result.class_ids, strict=True)):
                part = crop(item.frame.image, box, margin=1.0, aspect=None) if label == 0 else None
                if part is None or part.image.shape[0] < 64 or item.frame.index % 5:
                    continue
                track = int(item.result.track_ids[row])
                out = place.scratch / f"{track}-{item.frame.index}.png"
                cv2.imwrite(str(out), part.image)
                found.append({"file": str(out), "label": track, "frame": item.frame.index})
    with (place.scratch / "walkers.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.DictWriter(stream, ["file", "label", "camera"], extrasaction="ignore")
        rows.writeheader()
        rows.writerows(found)
    return found


def cosines(artifact: Path, place: Place) -> tuple[list[float], list[float]]:
    """Cosines of one person 5 frames apart, and of two persons in one frame."""
    found = walkers(place)
    given = answers(artifact, *(Path(item["file"]) for item in found))
    vectors = [np.array(answer["embedding"]) for answer in given]
    same, others = [], []
    for one, item in enumerate(found):
        for two in range(one + 1, len(found)):
            cosine, gap = float(vectors[one] @ vectors[two]), found[two]["frame"] - item["frame"]
            if found[two]["label"] == item["label"] and gap == 5:
                same.append(cosine)
            elif found[two]["label"] != item["label"] and gap == 0:
                others.append(cosine)
    return same, others


def found_again(artifact: Path, place: Place) -> float:
    """Recall at 1 of `edgecv eval`: each picture of a person is searched for among all others of the video."""
    walkers(place)
    return evaluated("recall1", lambda place: f"identities-csv:{place.scratch}/walkers.csv")(artifact, place)
