"""Made-up print: what is drawn stands where it is said to stand, and is the same each time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgecv.vision.polygons import area, cut_quad, overlap
from edgecv.vision.printed import ILLEGIBLE, LETTERS, draw_page, draw_word, random_text
from edgecv.vision.strokes import STROKES, stroke_word


def test_pages_are_functions_of_the_generator() -> None:
    one, same, other = (draw_page(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.image, same.image)
    assert one.texts == same.texts
    assert one.image.shape == (384, 512, 3)
    assert one.image.shape != other.image.shape or not np.array_equal(one.image, other.image)


def test_words_stand_in_their_places() -> None:
    words, edges, elsewhere = 0, [], []
    for seed in range(8):
        page = draw_page(np.random.default_rng(seed))
        assert len(page.texts) == len(page.quads) == len(page.illegible)
        strength = cv2.Laplacian(cv2.GaussianBlur(page.image, (0, 0), 1.2), cv2.CV_32F).std(axis=2)
        for quad, text, dim in zip(page.quads, page.texts, page.illegible, strict=True):
            assert (quad >= 0).all()
            assert (quad <= [512, 384]).all()
            assert (text == ILLEGIBLE) == dim
            if not dim:
                words += 1
                inside = np.zeros(page.image.shape[:2], np.uint8)
                cv2.fillConvexPoly(inside, np.round(quad).astype(np.int32), 1)
                edges.append(strength[inside > 0].mean())
                elsewhere.append(strength.mean())
                assert set(text) <= set(LETTERS)
    assert words > 20
    assert np.median(edges) > 1.5 * np.median(elsewhere), "letters have edges, which most of a page has not"


def test_no_two_words_share_a_place() -> None:
    for seed in range(8):
        quads = draw_page(np.random.default_rng(seed)).quads
        for row, quad in enumerate(quads):
            assert all(overlap(quad, other) < 0.1 * min(area(quad), area(other)) for other in quads[row + 1 :])


def test_a_share_of_the_words_is_too_small() -> None:
    page = draw_page(np.random.default_rng(5), dim=1.0)
    assert page.illegible.all()
    assert set(page.texts) <= {ILLEGIBLE}
    heights = np.linalg.norm(page.quads[:, 3] - page.quads[:, 0], axis=1)
    assert (heights < 9).all()


def test_words_alone() -> None:
    image, text = draw_word(np.random.default_rng(1))
    again, same = draw_word(np.random.default_rng(1))
    assert text == same
    assert np.array_equal(image, again)
    shapes = [draw_word(np.random.default_rng(seed))[0].shape for seed in range(20)]
    assert all(shape[0] >= 10 and shape[2] == 3 for shape in shapes)


def test_texts_have_a_form() -> None:
    texts = [random_text(np.random.default_rng(seed)) for seed in range(300)]
    numbers = [text for text in texts if text.isdigit()]
    words = [text for text in texts if text.isalpha()]
    codes = [text for text in texts if not text.isdigit() and not text.isalpha()]
    assert {len(text) for text in numbers} == set(range(2, 7))
    assert {len(text) for text in words} == set(range(3, 9))
    assert codes
    assert not set("".join(codes)) & set("IO")


def test_strokes() -> None:
    assert set(STROKES) == set(LETTERS)
    one, other = (stroke_word(letter, height=40) for letter in ("0", "O"))
    assert not np.array_equal(one, other), "a zero has a stroke through it"
    drawn = stroke_word("HELLO", height=40, thick=4, slant=0.2)
    assert drawn.max() == 255
    assert not drawn[0].any()
    assert not drawn[:, 0].any()
    assert not drawn[:, -1].any()
    assert cut_quad(drawn, np.array([[0, 0], [20, 0], [20, 20], [0, 20]])) is not None
    with pytest.raises(KeyError):
        stroke_word("?", height=40)
