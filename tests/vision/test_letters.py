"""Words in a picture: any script where OpenCV has its own fonts, question marks before that."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgecv.vision import letters
from edgecv.vision.draw import put_text
from edgecv.vision.letters import Words


def drawn(words: str, scale: float = 1.0) -> np.ndarray:
    image = np.zeros((60, 500, 3), np.uint8)
    Words(words, scale).draw(image, (5, 40), (255, 255, 255))
    return image


needs_fonts = pytest.mark.skipif(not hasattr(cv2, "FontFace"), reason="OpenCV before 5 has no fonts of its own")


@needs_fonts
@pytest.mark.parametrize("words", ["京A123", "Grüße", "яблоко", "日本語"])
def test_other_scripts_are_no_question_marks(words: str) -> None:
    image = drawn(words)
    assert image.any()
    marks = drawn("".join(letter if letter.isascii() else "?" for letter in words))
    assert (image != marks).any()
    assert (drawn("京") != drawn("沪")).any()


@pytest.mark.parametrize("words", ["plate 0.81", "京A12345", "gjpqy ÄÖ"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_the_measure_holds_what_is_drawn(words: str, scale: float) -> None:
    line = Words(words, scale)
    image = drawn(words, scale)
    rows, columns = np.flatnonzero(image.any(axis=(1, 2))), np.flatnonzero(image.any(axis=(0, 2)))
    assert rows[0] >= 40 - line.height - 2
    assert rows[-1] <= 40 + line.base + 2
    assert 0.6 * line.width <= columns[-1] - 5 <= line.width + 4


def test_older_opencv_shows_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    letters._font.cache_clear()
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    try:
        assert (drawn("京A1") == drawn("?A1")).all()
    finally:
        letters._font.cache_clear()


def test_a_long_line_stays_inside_the_picture() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    put_text(image, "京" * 60, (30, 200), 1.0, (10, 200, 10))
    put_text(image, "x" * 60, (-30, -200), 1.0, (10, 200, 10))
    assert image.any()
