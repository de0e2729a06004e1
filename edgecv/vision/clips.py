"""Clips of a video -> a network's input: each frame as the contract prepares a picture, side by side in one buffer.

A clip is uint8 `(T, H, W, 3)` BGR, oldest frame first. Which frames it holds is decided by time, not by number, so
that a camera of any rate, and one that drops frames, shows the network movements as fast as it learned them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgecv.core.contract import Clip, InputContract
from edgecv.core.tensor import Array, Layout, TensorSpec
from edgecv.errors import DataError
from edgecv.vision.image import Image

_LONGEST_GAP = 2.0
"""Spans of a clip without a frame after which what was seen before is forgotten."""
_EXACT_S = 1e-6
_MOST_STEPS = 4
"""Frames in a row that one frame may stand for where a network streams."""


def frame_views(array: Array, layout: Layout, frames: int) -> Array:
    """A clip's network input, batch 1, as a view with the frames first: `(T, C, h, w)`, or `(T, h, w, C)`.

    ``array`` is `(1, T * C, h, w)` (NCHW), `(1, h, w, T * C)` (NHWC), or has an axis of frames as its layout says.
    """
    one: Array = array[0]
    if layout == "NHWC":
        one = one.reshape(*one.shape[:2], frames, -1).transpose(2, 0, 1, 3)
    elif layout == "NCTHW":
        one = one.transpose(1, 0, 2, 3)
    elif layout == "NCHW":
        one = one.reshape(frames, -1, *one.shape[-2:])
    return one


def stacked(array: Array, layout: Layout) -> Array:
    """A clip's network input of any layout as `(1, T * C, h, w)`, the form of everything that is recorded."""
    if layout in ("NCHW", "NHWC"):
        return array.transpose(0, 3, 1, 2) if layout == "NHWC" else array
    first = {"NTCHW": (0, 1, 2, 3, 4), "NCTHW": (0, 2, 1, 3, 4), "NTHWC": (0, 1, 4, 2, 3)}[layout]
    moved = array.transpose(first)
    return np.ascontiguousarray(moved.reshape(len(moved), -1, *moved.shape[-2:]))


def unstacked(array: Array, layout: Layout, frames: int) -> Array:
    """`(N, T * C, h, w)` in another ``layout``: the way back from `stacked`."""
    if layout in ("NCHW", "NHWC"):
        return array.transpose(0, 2, 3, 1) if layout == "NHWC" else array
    split = array.reshape(len(array), frames, -1, *array.shape[-2:])
    return split.transpose({"NTCHW": (0, 1, 2, 3, 4), "NCTHW": (0, 2, 1, 3, 4), "NTHWC": (0, 1, 3, 4, 2)}[layout])


def frame_spec(spec: TensorSpec, contract: InputContract) -> TensorSpec:
    """The tensor of one frame of a clip whose input is ``spec``."""
    height, width = contract.size
    last = spec.layout in ("NHWC", "NTHWC")
    shape = (1, height, width, contract.channels) if last else (1, contract.channels, height, width)
    return TensorSpec(spec.name, shape, spec.dtype, "NHWC" if last else "NCHW", spec.quantization)


def check_clip(image: Image, clip: Clip) -> None:
    """Raise `DataError` for anything but a clip of as many frames as ``clip`` says."""
    if image.ndim != 4 or len(image) != clip.frames or image.dtype != np.uint8 or image.shape[3] != 3:
        raise DataError(
            f"the clip is {image.dtype} {image.shape}; allowed are uint8 ({clip.frames}, H, W, 3) in BGR order. "
            "A network for clips cannot look at a single picture: give it a video or a camera"
        )


def middle(image: Image) -> Image:
    """A picture itself, or the frame in the middle of a clip."""
    return image[len(image) // 2] if image.ndim == 4 else image


def picture_size(image: Image) -> tuple[int, int]:
    """Height and width of a picture, or of a clip's frames; a row of numbers counts as one row of pixels."""
    if image.ndim == 1:
        return 1, len(image)
    return (image.shape[1], image.shape[2]) if image.ndim == 4 else (image.shape[0], image.shape[1])


def pick_times(times_s: Sequence[float], clip: Clip, *, last_s: float) -> list[int]:
    """Which of the frames at ``times_s`` (rising, one or more) a clip that ends at ``last_s`` is made of.

    For each of its moments the nearest frame, the earlier of two as near; before the first frame, the first.
    """
    known = np.asarray(times_s, dtype=np.float64)
    wanted = last_s - clip.span_s + np.arange(clip.frames) / clip.fps
    after = np.clip(np.searchsorted(known, wanted - _EXACT_S), 1, max(1, len(known) - 1))
    if len(known) == 1:
        return [0] * clip.frames
    nearer = wanted - known[after - 1] <= known[after] - wanted + _EXACT_S
    return [int(index) for index in np.where(nearer, after - 1, after)]


@dataclass
class ClipWindow:
    """The prepared frames of the last seconds of a camera, from which each clip is put together. One thread's.

    ``prepare`` writes one picture's network input into a buffer of ``spec`` (one frame's). A frame is prepared once.
    Frames nearer to each other than a quarter of the clip's step are thinned out, so that the memory does not grow
    with the camera's rate. A clip that reaches back before the first frame repeats it.
    """

    clip: Clip
    spec: TensorSpec
    prepare: Callable[[Image, Array], object]
    _kept: deque[tuple[float, Array]] = field(default_factory=deque)
    _spare: list[Array] = field(default_factory=list)

    def add(self, image: Image, time_s: float) -> None:
        """The next frame, taken at ``time_s``. After a gap or a jump back in time the frames before are forgotten.

        Raises:
            DataError: the picture cannot be used; what was seen before stays.
        """
        fresh = self._spare.pop() if self._spare else np.zeros(self.spec.shape, dtype=self.spec.dtype)
        try:
            self.prepare(image, fresh)
        except DataError:
            self._spare.append(fresh)
            raise
        kept = self._kept
        if kept and not 0 <= time_s - kept[-1][0] <= _LONGEST_GAP * max(self.clip.span_s, 1.0 / self.clip.fps):
            self.clear()
        if len(kept) > 1 and kept[-1][0] - kept[-2][0] < 0.25 / self.clip.fps - _EXACT_S:
            self._spare.append(kept.pop()[1])
        kept.append((time_s, fresh))
        while len(kept) > 2 and kept[1][0] <= time_s - self.clip.span_s:
            self._spare.append(kept.popleft()[1])

    def clear(self) -> None:
        """Forget all frames, as after a loss of the camera."""
        self._spare += [item[1] for item in self._kept]
        self._kept.clear()

    def write(self, out: Array, layout: Layout) -> float:
        """The clip that ends with the newest frame, into the network input ``out``; its seconds that were seen.

        Raises:
            DataError: there is no frame yet.
        """
        if not self._kept:
            raise DataError("there is no frame to make a clip of yet")
        times = [time_s for time_s, _ in self._kept]
        views = frame_views(out, layout, self.clip.frames)
        for view, index in zip(views, pick_times(times, self.clip, last_s=times[-1]), strict=True):
            view[...] = self._kept[index][1][0]
        return min(self.clip.span_s, times[-1] - times[0])


@dataclass(frozen=True)
class Moment:
    """What a network sees with a frame: so many ``seconds`` of the camera.

    Where it streams, ``times`` is as how many of its frames this one counts, and with ``anew`` it begins anew.
    """

    seconds: float
    times: int = 1
    anew: bool = False


@dataclass
class StreamPace:
    """When a camera's frames count for a network that streams, which was trained on ``clip.fps`` frames a second.

    Of a faster camera the frames in between are answered and then left out of the state; of a slower one, and behind a
    slow engine, a frame stands for up to `_MOST_STEPS` that are missing. After a longer gap (a loss of the camera) or
    a jump back in time the network begins anew. Frames of one camera, in order.
    """

    clip: Clip
    _due_s: float | None = None
    _last_s: float = 0.0
    _since_s: float = 0.0

    def see(self, time_s: float) -> Moment:
        """The next frame, taken at ``time_s``."""
        step_s = 1.0 / self.clip.fps
        gap_s = time_s - self._last_s
        anew = self._due_s is None or gap_s < 0 or gap_s > (_MOST_STEPS + 0.5) * step_s
        self._last_s = time_s
        if self._due_s is None or anew:
            self._due_s, self._since_s = time_s + step_s, time_s
            return Moment(0.0, anew=True)
        # A quarter of a step early is near enough: a camera's frames come a little early and late.
        times = max(0, math.floor((time_s - self._due_s) / step_s + 1.25 + _EXACT_S))
        self._due_s += times * step_s
        return Moment(min(self.clip.span_s, time_s - self._since_s), times)
