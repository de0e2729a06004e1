"""Capital letters and digits as pen strokes, which look the same on every machine."""

from __future__ import annotations

import cv2
import numpy as np

from edgecv.vision.image import Image

__all__ = ["STROKES", "stroke_word"]

# Corners as pairs of digits, x (0 to 4) and y (0 at the top to 6); a bar lifts the pen.
STROKES: dict[str, str] = {
    "A": "06 20 46|13 33",
    "B": "00 06 36 45 44 33 03|33 42 41 30 00",
    "C": "41 30 10 01 05 16 36 45",
    "D": "00 06 26 44 42 20 00",
    "E": "40 00 06 46|03 33",
    "F": "40 00 06|03 33",
    "G": "41 30 10 01 05 16 36 45 43 23",
    "H": "00 06|40 46|03 43",
    "I": "10 30|20 26|16 36",
    "J": "40 45 36 16 05",
    "K": "00 06|40 03 46",
    "L": "00 06 46",
    "M": "06 00 23 40 46",
    "N": "06 00 46 40",
    "O": "10 01 05 16 36 45 41 30 10",
    "P": "06 00 30 41 42 33 03",
    "Q": "10 01 05 16 36 45 41 30 10|24 46",
    "R": "06 00 30 41 42 33 03|23 46",
    "S": "41 30 10 01 02 13 33 44 45 36 16 05",
    "T": "00 40|20 26",
    "U": "00 05 16 36 45 40",
    "V": "00 26 40",
    "W": "00 16 22 36 40",
    "X": "00 46|40 06",
    "Y": "00 23 40|23 26",
    "Z": "00 40 06 46",
    "0": "10 01 05 16 36 45 41 30 10|15 31",
    "1": "12 20 26|16 36",
    "2": "01 10 30 41 42 06 46",
    "3": "01 10 30 41 42 33 13|33 44 45 36 16 05",
    "4": "36 30 04 44",
    "5": "40 00 03 33 44 45 36 16 05",
    "6": "41 30 10 01 05 16 36 45 44 33 13 04",
    "7": "00 40 16",
    "8": "13 02 01 10 30 41 42 33 13 04 05 16 36 45 44 33",
    "9": "42 33 13 02 01 10 30 41 45 36 16 05",
}
_SHIFT = 4


def stroke_word(text: str, *, height: int, width_share: float = 0.6, thick: int = 3, slant: float = 0.0) -> Image:
    """``text`` of the letters in `STROKES` as white on black, uint8 `(H, W)` with a free border.

    A letter is ``height`` pixels high, ``width_share`` of it wide and leans by ``slant`` (x over y); the pen is
    ``thick`` pixels wide.

    Raises:
        KeyError: a letter is not in `STROKES`.
    """
    wide, edge = height * width_share, 2 * thick + round(abs(slant) * height) + 2
    step = wide + max(2.0 * thick, 0.28 * height)
    out = np.zeros((height + 2 * edge, round(step * len(text)) + 2 * edge), np.uint8)
    for place, letter in enumerate(text):
        for line in STROKES[letter].split("|"):
            grid = np.array([[int(pair[0]) / 4, int(pair[1]) / 6] for pair in line.split()])
            x = edge + place * step + grid[:, 0] * wide + slant * height * (1 - grid[:, 1])
            points = np.stack([x, edge + grid[:, 1] * height], axis=1)
            fixed = np.round(points * (1 << _SHIFT)).astype(np.int32).reshape(-1, 1, 2)
            cv2.polylines(out, [fixed], False, 255, thick, cv2.LINE_AA, _SHIFT)
    return out
