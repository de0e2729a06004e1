"""Pictures of people out of the test data: masks by COCO's polygons, persons cut out, frames of films."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from edgecv.families.segmentation_map import NO_CLASS, MaskTruth
from edgecv.vision.image import Image

SMALLEST_SHARE = 0.02
"""Pictures in which persons fill less of the area are left out: portrait networks do not look for them."""

SMALLEST = (60, 25)
"""Height and width in pixels of a person worth cutting out."""
FILMS = ("asl_gestures/*.mkv", "two-persons-indoor.mp4", "one-by-one-person-detection.mp4")
OF_A_FILM = 24
"""Frames taken of each film; a network for portraits learns little of its ranges from animals."""
VIEWS = 8
"""Pictures to be found again of each person."""
CROWDS = 40
"""Pictures with rows of small faces."""
CROWD_SIZE = (480, 640)


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


def persons(data: Path) -> dict[str, Image]:
    """Persons cut out of the pictures of COCO, BGR, by the ids of their annotations."""
    table = json.loads((data / "coco-mini/person_keypoints.json").read_text(encoding="utf-8"))
    names = {item["id"]: item["file_name"] for item in table["images"]}
    found = {}
    for note in table["annotations"]:
        left, top, width, height = (round(value) for value in note["bbox"])
        if height >= SMALLEST[0] and width >= SMALLEST[1]:
            image = _read(data / "coco-mini/images" / names[note["image_id"]])
            found[str(note["id"])] = image[max(0, top) : top + height, max(0, left) : left + width]
    return found


def frames(data: Path, folder: Path) -> list[Path]:
    """Frames of films that show people, as files in ``folder``."""
    folder.mkdir(parents=True)
    for path in (path for pattern in FILMS for path in sorted((data / "videos").glob(pattern))):
        video = cv2.VideoCapture(str(path))
        every = max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)) // OF_A_FILM)
        number = 0
        while video.grab():
            if number % every == 0:
                cv2.imwrite(str(folder / f"{path.stem}-{number:05}.png"), video.retrieve()[1])
            number += 1
    return sorted(folder.iterdir())


def crowds(data: Path, folder: Path) -> list[Path]:
    """Pictures with 4 to 25 faces in rows, put together from single portraits, as files in ``folder``.

    A detector of faces that has seen hardly any has too small ranges: in a crowd its values are cut off.
    """
    random = np.random.default_rng(0)
    portraits = [_read(path) for path in sorted((data / "faces/landmarks").rglob("*.[jp][pn]g"))]
    height, width = CROWD_SIZE
    for number in range(CROWDS):
        side = int(random.integers(2, 6))
        small = (width // side, height // side)
        rows = [
            np.hstack([cv2.resize(portraits[one], small, interpolation=cv2.INTER_AREA) for one in row])
            for row in random.integers(len(portraits), size=(side, side))
        ]
        _write(folder / f"{number:02}.png", np.asarray(np.vstack(rows), dtype=np.uint8))
    return sorted(folder.iterdir())


def osnet_settings(data: Path, out: Path) -> list[str]:
    """``--set`` values: half of the persons to calibrate with; the others to be found again in `VIEWS` views each."""
    random = np.random.default_rng(0)
    whole = persons(data)
    for number, (name, image) in enumerate(whole.items()):
        if number < len(whole) // 2:
            _write(out / "calibration" / f"{name}.png", image)
            for view in range(VIEWS):
                _write(out / f"calibration/{name}-{view}.png", _seen_otherwise(image, random, mirrored=view % 2 == 1))
            continue
        _write(out / "eval/gallery" / name / "0.png", image)
        for view in range(VIEWS):
            _write(out / "eval/query" / name / f"{view}.png", _seen_otherwise(image, random, mirrored=view % 2 == 1))
    return [
        f"data.eval={{kind: identities, path: {out / 'eval'}}}",
        f"data.calibration={{source: {{kind: images, path: {out / 'calibration'}}}, samples: 96, select: random}}",
        "measure.protocol=smoke",
    ]


def _seen_otherwise(image: Image, random: np.random.Generator, *, mirrored: bool) -> Image:
    """A part of a person in other light, smaller and with noise: a float OSNet does not know all of them again."""
    height, width = image.shape[:2]
    top, bottom = random.integers(0, height // 5, 2)
    left, right = random.integers(0, width // 6, 2)
    part = image[top : height - bottom, left : width - right]
    part = part[:, ::-1] if mirrored else part
    small = cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA)
    lit = np.clip(small * random.uniform(0.5, 1.4) + random.normal(0, 5, small.shape), 0, 255)
    return np.asarray(lit, dtype=np.uint8)


def sinet_settings(data: Path, out: Path) -> list[str]:
    """``--set`` values: persons of COCO by their masks; COCO's other pictures and films to calibrate with."""
    judged, truths = person_masks(data / "coco-mini")
    for path, truth in zip(judged, truths, strict=True):
        _write(out / "images" / f"{path.stem}.png", _read(path))
        _write(out / "masks" / f"{path.stem}.png", truth.classes)
    films = frames(data, out / "films")
    others = [path for path in sorted((data / "coco-mini/images").iterdir()) if path not in judged]
    for path in (*others, *films[:: len(films) // (len(others) // 2)]):
        _write(out / "calibration" / f"{path.stem}.png", _read(path))
    return [
        f"data.eval={{kind: masks, path: {out / 'images'}, truth: {out / 'masks'}, ignore_index: {NO_CLASS}}}",
        f"data.calibration={{source: {{kind: images, path: {out / 'calibration'}}}, samples: 48, select: random}}",
        "measure.protocol=smoke",
    ]


def _write(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def _read(path: Path) -> Image:
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} cannot be read")
    return np.asarray(image, dtype=np.uint8)
