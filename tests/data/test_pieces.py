from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.progress import SilentProgress
from edgecv.core.recipe import DataSpec
from edgecv.data.pieces import LEAST_SHARE, Pieces
from edgecv.data.readers import LabelledReader, open_reader, spec_fingerprint


def opened(folder: Path, *, gray: bool = False) -> LabelledReader:
    """Two pictures of 40 x 60 and 50 x 30 pixels in each of which no two pixels are equal."""
    folder.mkdir()
    for number, (high, wide) in enumerate(((40, 60), (50, 30))):
        values = np.random.default_rng(number).permutation(high * wide)
        parts = (values % 256, values // 256 + 7 * number, np.zeros_like(values))
        image = np.stack(parts, axis=1).reshape(high, wide, 3).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), image[..., 0] if gray else image)
    return open_reader(DataSpec(kind="images", path=str(folder)), base=folder, labels=(), progress=SilentProgress())


def test_each_piece_is_a_square_out_of_its_picture(tmp_path: Path) -> None:
    pictures = opened(tmp_path / "more")
    pieces = Pieces(pictures, 20)
    assert len(pieces) == len(pieces.ids) == len(set(pieces.ids)) == len(pieces.truths) == 40
    assert pieces.ids[0] == "0.png#0"
    assert pieces.ids[-1] == "1.png#19"
    sides = set()
    for index in range(40):
        sample, whole = pieces[index], pictures[index // 20].image
        assert sample.id == pieces.ids[index]
        assert sample.truth is None
        side = sample.image.shape[0]
        assert sample.image.shape == (side, side, 3)
        assert round(LEAST_SHARE * min(whole.shape[:2])) <= side <= min(whole.shape[:2])
        ((top, left),) = np.argwhere((whole == sample.image[0, 0]).all(axis=2))
        assert np.array_equal(sample.image, whole[top : top + side, left : left + side])
        sides.add((index // 20, side, int(top), int(left)))
    assert len(sides) > 35


def test_an_index_is_always_the_same_piece(tmp_path: Path) -> None:
    pictures = opened(tmp_path / "more")
    few, many = Pieces(pictures, 3), Pieces(pictures, 9)
    again = Pieces(pictures, 3)
    for index in range(3):
        assert np.array_equal(few[index].image, many[index].image)
        assert np.array_equal(few[3 + index].image, many[9 + index].image)
        assert np.array_equal(few[index].image, again[index].image)
    assert np.array_equal(few[-1].image, few[5].image)
    assert len({many.sha256(index) for index in range(18)}) == 18
    assert few.sha256(4) == many.sha256(10)
    assert few.fingerprint() == again.fingerprint() != many.fingerprint()
    with pytest.raises(IndexError):
        few[6]


def test_gray_pictures_have_gray_pieces(tmp_path: Path) -> None:
    pictures = opened(tmp_path / "more", gray=True)
    assert Pieces(pictures, 2)[0].image.ndim == pictures[0].image.ndim


def test_only_sets_with_pieces_have_another_fingerprint(tmp_path: Path) -> None:
    opened(tmp_path / "more")
    whole = DataSpec(kind="images", path="more")
    prints = [spec_fingerprint(DataSpec(kind="images", path="more", pieces=some), base=tmp_path) for some in (3, 4)]
    assert len({spec_fingerprint(whole, base=tmp_path), *prints}) == 3
