"""Videos and folders of frames on disk -> clips: which frames there are, and those that a clip is made of."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgecv.core.contract import Clip
from edgecv.data import imagefile
from edgecv.data.imagefolder import image_paths
from edgecv.errors import CameraError, DataError
from edgecv.runtime.sources.capture import opened, quiet_opencv
from edgecv.vision.clips import pick_times
from edgecv.vision.image import Image

VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".mjpeg"})
MAX_FRAMES = 1_000_000
_USUAL_FPS = 25.0


@dataclass(frozen=True)
class VideoFacts:
    """What was found in a video: the times of its frames in seconds (None for a folder of pictures, which has as many
    as ``frames`` and no times), and a hash of its bytes."""

    frames: int
    times_s: tuple[float, ...] | None
    sha256: str


def look_at(path: Path) -> VideoFacts:
    """Go through a video file, or a folder of pictures, once.

    Raises:
        ValueError: there is nothing that can be decoded; the message is a reason in words.
    """
    if path.is_dir():
        files = image_paths(path)
        if not files:
            raise ValueError("the folder holds no pictures")
        digest, sizes = hashlib.sha256(), set()
        for file in files:
            data = imagefile.read_bytes(file)
            try:
                sizes.add(imagefile.decode(data).shape)
            except ValueError as error:
                raise ValueError(f"{file.name}: {error}") from error
            digest.update(hashlib.sha256(data).digest())
        if len(sizes) > 1:
            raise ValueError("its pictures are not all of one size")
        return VideoFacts(len(files), None, digest.hexdigest())
    content = hashlib.sha256(imagefile.read_bytes(path)).hexdigest()
    try:
        capture = opened(str(path), cv2.CAP_FFMPEG, "the video")
    except CameraError:
        raise ValueError("it is no video that can be read; the file is damaged or of an unknown kind") from None
    times: list[float] = []
    try:
        found = float(capture.get(cv2.CAP_PROP_FPS))
        step_s = 1.0 / (found if 0 < found < 1000 else _USUAL_FPS)
        with quiet_opencv():
            while len(times) < MAX_FRAMES and capture.grab():
                stamp_s = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
                steady_s = times[-1] + step_s if times else 0.0
                given = math.isfinite(stamp_s) and (not times or stamp_s > times[-1])
                times.append(stamp_s if given else steady_s)
    finally:
        capture.release()
    if not times:
        raise ValueError("it holds no frame that can be decoded")
    return VideoFacts(len(times), tuple(times), content)


def read_clip(
    path: Path, facts: VideoFacts, clip: Clip, *, start_s: float | None = None, end_s: float | None = None
) -> Image:
    """The clip in the middle of a video, or of its part from ``start_s`` to ``end_s``: uint8 `(T, H, W, 3)` BGR.

    The pictures of a folder count as ``clip.fps`` a second. A part that is shorter than the clip ends it, and its
    first frame is repeated before.

    Raises:
        DataError: the video changed since it was looked at.
    """
    numbers = clip_frames(facts, clip, start_s=start_s, end_s=end_s)
    frames = _pictures(path, numbers) if path.is_dir() else _frames(path, numbers)
    if len(frames) != len(set(numbers)):
        raise DataError(
            f"{path}: frames are missing that were there when the data set was opened; do not change it now"
        )
    return np.stack([frames[number] for number in numbers])


def clip_frames(facts: VideoFacts, clip: Clip, *, start_s: float | None, end_s: float | None) -> list[int]:
    """The numbers of the frames that `read_clip` reads, rising, perhaps with repeats."""
    times = facts.times_s or tuple(number / clip.fps for number in range(facts.frames))
    first_s, final_s = start_s or 0.0, times[-1] if end_s is None else end_s
    known = [number for number, time_s in enumerate(times) if first_s - 1e-6 <= time_s <= final_s + 1e-6]
    if not known:  # a part between two frames
        known = [int(np.argmin(np.abs(np.array(times) - first_s)))]
    begin_s, ends_s = times[known[0]], times[known[-1]]
    last_s = min(ends_s, (begin_s + ends_s + clip.span_s) / 2)
    return [known[index] for index in pick_times([times[number] for number in known], clip, last_s=last_s)]


def _pictures(path: Path, numbers: Sequence[int]) -> dict[int, Image]:
    files = image_paths(path)
    return {number: imagefile.load_image(files[number]) for number in set(numbers) if number < len(files)}


def _frames(path: Path, numbers: Sequence[int]) -> dict[int, Image]:
    wanted, found = set(numbers), dict[int, Image]()
    try:
        capture = opened(str(path), cv2.CAP_FFMPEG, f"the video {path}")
    except CameraError as error:
        raise DataError(f"{error}. It could be read when the data set was opened") from error
    try:
        with quiet_opencv():
            for number in range(max(wanted) + 1):
                if not capture.grab():
                    break
                if number in wanted:
                    done, image = capture.retrieve()
                    if done:
                        found[number] = image
    finally:
        capture.release()
    return found
