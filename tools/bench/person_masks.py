"""Masks of persons, drawn from the polygons of COCO's annotations."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from edgecv.families.segmentation_map import NO_CLASS, MaskTruth

SMALLEST_SHARE = 0.02
"""Pictures in which persons fill less of the area are left out: portrait networks do not look for them."""


def person_masks(folder: Path) -> tuple[list[Path], list[MaskTruth]]:
    """Pictures of ``folder`` (instances.json and images) with persons, and 1 where they are; crowds are not judged."""
    table = json.loads((folder / "instances.json").read_text(encoding="utf-8"))
    person = next(item["id"] for item in table["categories"] if item["name"] == "person")
    images: list[Path] = []
    masks: list[MaskTruth] = []
    for image in table["images"]:
        mask = np.zeros((image["height"], image["width"]), dtype=np.uint8)
        notes = [note for note in table["annotations"] if note["image_id"] == image["id"]]
        for note in sorted(
            (note for note in notes if note["category_id"] == person), key=lambda note: -note["iscrowd"]
        ):
            if note["iscrowd"]:
                left, top, width, height = (round(value) for value in note["bbox"])
                mask[top : top + height, left : left + width] = NO_CLASS
                continue
            corners = [np.round(np.reshape(part, (-1, 2))).astype(np.int32) for part in note["segmentation"]]
            cv2.fillPoly(mask, corners, 1)
        if (mask == 1).mean() >= SMALLEST_SHARE:
            images.append(folder / "images" / image["file_name"])
            masks.append(MaskTruth(mask))
    return images, masks
