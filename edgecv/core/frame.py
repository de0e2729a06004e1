"""One picture on its way through the pipeline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Frame:
    """A picture with the moment it was taken.

    ``image`` is uint8, `(H, W, 3)` BGR or `(H, W)` gray. ``captured_s`` is on the clock of
    ``time.monotonic``. ``index`` counts the frames of one source from 0. ``media_s`` is the frame's time in
    the stream itself where that runs on a clock of its own (a video file read faster than it was taken).
    """

    image: npt.NDArray[np.uint8]
    captured_s: float
    index: int
    source: str = ""
    media_s: float | None = None

    @property
    def time_s(self) -> float:
        """The time that movement is judged by: ``media_s`` where there is one, else ``captured_s``."""
        return self.captured_s if self.media_s is None else self.media_s

    def __post_init__(self) -> None:
        image = self.image
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            raise ValueError(f"frame is {image.dtype} {image.shape}; allowed: uint8 (H, W) or (H, W, 3)")

    def __repr__(self) -> str:
        size = "x".join(str(length) for length in self.image.shape)
        return f"Frame({size}, captured_s={self.captured_s:.6f}, index={self.index}, source={self.source!r})"
