"""Words drawn into a picture, in any script where OpenCV can."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2

from edgecv.vision.image import Image

_SIMPLE = cv2.FONT_HERSHEY_SIMPLEX
_SIMPLE_SIZE = 0.6
_FACE_PX = 19
"""Letters of OpenCV's font files at this height, in pixels, are as high as the simple ones at `_SIMPLE_SIZE`."""


class Words:
    """One line of words at a ``scale`` (1 for a picture 720 pixels high), measured, ready to be drawn.

    ASCII is drawn with OpenCV's stroke font. OpenCV 5 brings fonts for most scripts; before it, and for letters
    that they lack, a question mark stands in (the words of a result, and its JSON, always hold the letters).
    """

    def __init__(self, words: str, scale: float) -> None:
        self._face = None if words.isascii() else _font()
        self._words = words if self._face is not None else words.encode("ascii", "replace").decode()
        self._scale = scale
        self._thick = max(1, round(scale))
        if self._face is None:
            (self.width, self.height), self.base = cv2.getTextSize(
                self._words, _SIMPLE, _SIMPLE_SIZE * scale, self._thick
            )
        else:
            # Accented capitals rise by the nominal size above the base line, tails fall a quarter of it below.
            size = self._size()
            box = cv2.getTextSize((0, 0), self._words, (0, 0), self._face, size)
            self.width, self.height, self.base = int(box[0]) + int(box[2]), size, round(0.25 * size)

    def draw(self, image: Image, place: tuple[int, int], ink: tuple[int, int, int]) -> None:
        """Write into ``image`` (uint8 `(H, W, 3)` BGR), the base line of the first letter at ``place`` (x, y)."""
        if self._face is None:
            size = _SIMPLE_SIZE * self._scale
            cv2.putText(image, self._words, place, _SIMPLE, size, ink, self._thick, cv2.LINE_AA)
        else:
            cv2.putText(image, self._words, place, ink, self._face, self._size())

    def _size(self) -> int:
        return max(8, round(_FACE_PX * self._scale))


@lru_cache(maxsize=1)
def _font() -> Any:
    """OpenCV's own font for all scripts; None before OpenCV 5, which has none."""
    make = getattr(cv2, "FontFace", None)
    return make("sans") if make is not None else None
