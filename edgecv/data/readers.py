"""Open the data set that a recipe names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import edgecv
from edgecv.core.contract import Clip
from edgecv.core.kinds import DataKind
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Reader
from edgecv.core.recipe import DataSpec
from edgecv.data.boxfiles import list_kitti, list_voc, list_yolo
from edgecv.data.coco import list_coco
from edgecv.data.csvfile import csv_paths, csv_rows, list_csv
from edgecv.data.digits import digits_fingerprint, open_digits
from edgecv.data.files import Listing, TruthFile, check_files, open_files, truth_key
from edgecv.data.imagefolder import class_folders, data_folder, image_paths, list_folder
from edgecv.data.motfile import list_mot
from edgecv.data.pairs import list_pairs
from edgecv.data.unlabelled import list_images
from edgecv.errors import DataError

_SILENT = SilentProgress()
_VIDEOS = ("videofolder", "video-csv")
_ELSEWHERE = ("path", "root", "truth")


# The truths of some kinds can draw themselves, with OpenCV; a fingerprint of other kinds can do without that.


def _masks(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.masks import list_masks

    return list_masks(spec, base=base, labels=labels)


def _text(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.textfile import list_text

    return list_text(spec, base=base, labels=labels)


def _depth(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.depth import list_depth

    return list_depth(spec, base=base, labels=labels)


def _anomaly(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.anomaly import list_anomaly

    return list_anomaly(spec, base=base, labels=labels)


def _coco_masks(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.coco_masks import list_coco_masks

    return list_coco_masks(spec, base=base, labels=labels)


def _video_folder(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.video import list_video_folder

    return list_video_folder(spec, base=base, labels=labels)


def _video_csv(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.video import list_video_csv

    return list_video_csv(spec, base=base, labels=labels)


def _captions(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.coco_captions import list_captions

    return list_captions(spec, base=base, labels=labels)


def _keypoints(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.coco_keypoints import list_keypoints

    return list_keypoints(spec, base=base, labels=labels)


def _identities(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.identities import list_identities

    return list_identities(spec, base=base)


def _textdet(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.textdet import list_textdet

    return list_textdet(spec, base=base, labels=labels)


def _icdar(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.textdet import list_icdar

    return list_icdar(spec, base=base, labels=labels)


def _frames(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    from edgecv.data.frames import list_frames

    return list_frames(spec, base=base, labels=labels)


_LISTERS: dict[DataKind, Callable[..., Listing]] = {
    "imagefolder": list_folder,
    "csv": list_csv,
    "coco": list_coco,
    "coco-keypoints": _keypoints,
    "coco-captions": _captions,
    "videofolder": _video_folder,
    "video-csv": _video_csv,
    "coco-masks": _coco_masks,
    "images": list_images,
    "video-frames": _frames,
    "masks": _masks,
    "text": _text,
    "pairs": list_pairs,
    "depth": _depth,
    "anomaly": _anomaly,
    "defects": list_images,
    "noisy": list_images,
    "yolo": list_yolo,
    "voc": list_voc,
    "kitti": list_kitti,
    "mot": list_mot,
    "textdet": _textdet,
    "icdar": _icdar,
    "identities": _identities,
    "identities-csv": _identities,
}
"""How the files of each kind of data set are listed: ``(spec, *, base, labels)``."""


class LabelledReader(Reader, Protocol):
    """A `Reader` which knows its truths without decoding a picture."""

    @property
    def truths(self) -> Sequence[Any]:
        """Truth of every sample, in order: a class index, a `DetectionTruth`, a `TruthFile`, ..., or None
        in a set without labels."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how the data set was understood."""
        ...


def _digits(spec: DataSpec, *, labels: Sequence[str], only: frozenset[str] | None = None) -> LabelledReader:
    return open_digits(split=spec.split, labels=labels, limit=spec.limit if only is None else None, only=only)


def _scenes(spec: DataSpec, *, labels: Sequence[str], only: frozenset[str] | None = None) -> LabelledReader:
    from edgecv.data.scenes import open_scenes

    return open_scenes(spec, labels=labels, only=only)


def _noisy_scenes(spec: DataSpec, *, labels: Sequence[str], only: frozenset[str] | None = None) -> LabelledReader:
    from edgecv.data.noisy import with_noise

    return with_noise(_scenes(spec, labels=labels, only=only), spec)


def _textures(spec: DataSpec, *, labels: Sequence[str], only: frozenset[str] | None = None) -> LabelledReader:
    from edgecv.data.anomaly_textures import open_textures

    return open_textures(spec, labels=labels, only=only)


def _motions(spec: DataSpec, *, labels: Sequence[str], only: frozenset[str] | None = None) -> LabelledReader:
    from edgecv.data.video_motions import open_motions

    return open_motions(spec, labels=labels, only=only)


def _drawn_identities(spec: DataSpec, *, labels: Sequence[str], only: frozenset[str] | None = None) -> LabelledReader:
    from edgecv.data.identities_drawn import open_drawn_identities

    return open_drawn_identities(spec, only=only)


def _printed(spec: DataSpec, *, labels: Sequence[str], only: frozenset[str] | None = None) -> LabelledReader:
    from edgecv.data.printed import open_printed

    return open_printed(spec, labels=labels, only=only)


def _shown(reader: LabelledReader, spec: DataSpec, *, whole: bool = True) -> LabelledReader:
    """Pictures from files as their kind of data set shows them."""
    if spec.kind == "noisy":
        from edgecv.data.noisy import with_noise

        return with_noise(reader, spec)
    if spec.kind != "defects":
        return reader
    from edgecv.data.defects import spoil

    return spoil(reader, spec, whole=whole)


_OPENERS: dict[DataKind, Callable[..., LabelledReader]] = {
    "sklearn-digits": _digits,
    "scenes-boxes": _scenes,
    "scenes-masks": _scenes,
    "scenes-instances": _scenes,
    "scenes-depth": _scenes,
    "scenes-keypoints": _scenes,
    "scenes-noisy": _noisy_scenes,
    "scenes-text": _printed,
    "scenes-words": _printed,
    "scenes-motions": _motions,
    "textures": _textures,
    "scenes-identities": _drawn_identities,
}
"""Data sets that are no files of the user's: ``(spec, *, labels, only=None)``."""


def open_reader(
    spec: DataSpec, *, base: Path, labels: Sequence[str], progress: Progress = _SILENT, clip: Clip | None = None
) -> LabelledReader:
    """Open the data set ``spec``; relative paths are relative to ``base`` (the recipe's folder).

    ``clip`` is the network's, ``model.input.clip``: how much of a video a sample shows.

    Every image file is checked once here (see `edgecv.data.imagefile`): broken ones are in the
    reader's ``skipped``, or refused with ``spec.strict``. ``spec.limit`` takes an even pick over the classes.

    Raises:
        DataError: missing, empty, or its classes do not fit ``labels``.
        ToolchainError: a package that the data set needs is not installed.
    """
    if spec.kind == "vectors":
        from edgecv.data.vectors import open_vectors

        return open_vectors(spec, base=base, labels=labels)
    opener = _OPENERS.get(spec.kind)
    if opener is not None:
        return _clipped(opener(spec, labels=labels), clip)
    listing = list_files(spec, base=base, labels=labels)
    if spec.kind in _VIDEOS:
        from edgecv.data.video import open_videos

        return _clipped(open_videos(listing, limit=spec.limit, strict=spec.strict, progress=progress), clip)
    if spec.kind == "video-frames":
        from edgecv.data.frames import open_frames

        return open_frames(listing, limit=spec.limit, strict=spec.strict, progress=progress)
    return _shown(open_files(listing, limit=spec.limit, strict=spec.strict, progress=progress), spec)


def open_subset(
    spec: DataSpec,
    ids: Collection[str],
    *,
    base: Path,
    labels: Sequence[str],
    progress: Progress = _SILENT,
    clip: Clip | None = None,
) -> LabelledReader:
    """Only those samples of the data set ``spec`` whose id is in ``ids``; no other file is read.

    Ids that the data set does not have are left out without an error; the reader may be empty.

    Raises:
        DataError: as `open_reader`.
    """
    wanted = frozenset(ids)
    opener = _OPENERS.get(spec.kind)
    if opener is not None:
        return _clipped(opener(spec, labels=labels, only=wanted), clip)
    listing = list_files(spec, base=base, labels=labels)
    if spec.kind == "video-frames":
        from edgecv.data.frames import open_frames

        return open_frames(listing, limit=None, strict=False, progress=progress, ids=wanted)
    entries = tuple(entry for entry in listing.entries if entry.id in wanted)
    if spec.kind in _VIDEOS:
        from edgecv.data.video import check_videos

        return _clipped(check_videos(Listing(listing.place, entries), progress), clip)
    return _shown(check_files(Listing(listing.place, entries), progress), spec, whole=False)


def _clipped(reader: LabelledReader, clip: Clip | None) -> LabelledReader:
    """The same data set in clips as the network takes them, where it holds videos."""
    with_clip: Callable[[Clip], LabelledReader] | None = getattr(reader, "with_clip", None)
    return reader if clip is None or with_clip is None else with_clip(clip)


def list_files(spec: DataSpec, *, base: Path, labels: Sequence[str]) -> Listing:
    """The files of every kind of data set that has any; no image is opened.

    Raises:
        DataError: missing, empty, broken, or its classes do not fit ``labels``.
    """
    lister = _LISTERS.get(spec.kind)
    if lister is None:
        raise DataError(f"data kind {spec.kind!r} has no files; allowed are {', '.join(_LISTERS)}")
    return lister(spec, base=base, labels=labels)


def spec_fingerprint(spec: DataSpec, *, base: Path, labels: Sequence[str] = ()) -> str:
    """A quick hash that changes when the data set behind ``spec`` does, as 64 hex digits.

    ``labels`` are needed for the kinds whose truths are checked here, such as coco.

    Over the settings, and each file's relative path, size and time of last change; no image is
    opened and scikit-learn is not imported. Two copies of a data set have different hashes
    where their times differ: use `Reader.fingerprint` to compare contents.

    Raises:
        DataError: the data set is missing; or, where its truths are checked here, broken.
    """
    digest = hashlib.sha256()
    settings = {key: value for key, value in asdict(spec).items() if key not in _ELSEWHERE and not _unset(key, value)}
    digest.update(repr(sorted(settings.items())).encode())
    if spec.kind in _OPENERS:
        drawn_by = f"edgecv {edgecv.__version__}"
        digest.update((digits_fingerprint() if spec.kind == "sklearn-digits" else drawn_by).encode())
    elif spec.kind == "imagefolder":
        root = data_folder(spec, base=base)
        for folder in class_folders(root):
            for path in image_paths(folder):
                _add_file(digest, str(path), start=len(str(root)))
    elif spec.kind == "csv":
        path, root = csv_paths(spec, base=base)
        for _, file, label in csv_rows(spec, path):
            digest.update(label.encode())
            _add_file(digest, os.path.join(root, file), start=len(str(root)))
    else:
        listing = list_files(spec, base=base, labels=labels)
        if spec.kind in ("defects", "noisy"):
            digest.update(f"edgecv {edgecv.__version__}".encode())  # which changes the pictures
        for entry in listing.entries:
            if isinstance(entry.truth, TruthFile):
                _add_file(digest, str(entry.truth.path), start=len(str(entry.truth.path.parent)))
            else:
                digest.update(repr((entry.id, truth_key(entry.truth))).encode())
            _add_file(digest, str(entry.path), start=len(str(entry.path)) - len(entry.name))
    return digest.hexdigest()


def _unset(key: str, value: Any) -> bool:
    """Settings that came later count only where they are used, so that they change no older hash."""
    return key in ("only", "ignore_index", "crop", "depth_unit", "caption", "noise", "shot", "pieces") and value is None


def _add_file(digest: "hashlib._Hash", path: str, *, start: int) -> None:
    """Mix in a file's name and state; one that cannot be looked at has none, which is a state too."""
    try:
        found = os.stat(path)
        state = f"{found.st_size} {found.st_mtime_ns}"
    except (OSError, ValueError):
        state = "missing"
    digest.update(f"{path[start:]}\0{state}\n".encode(errors="surrogateescape"))
