"""Truths that are files of their own: read with their sample, checked and hashed when the set is opened."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.progress import SilentProgress
from edgecv.data.files import Entry, FileReader, Listing, TruthFile, check_files
from edgecv.errors import DataError

from .conftest import encoded, picture


def read_mask(data: bytes) -> np.ndarray:
    """A mask from its bytes, as a reader of masks would."""
    mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if mask is None:
        raise ValueError("no picture")
    return mask


def opened(folder: Path, masks: list[bytes]) -> FileReader:
    """A reader over one picture for every mask."""
    entries = []
    for index, mask in enumerate(masks):
        (folder / f"{index}.png").write_bytes(encoded(picture(index)))
        (folder / f"{index}_mask.png").write_bytes(mask)
        truth = TruthFile(folder / f"{index}_mask.png", read_mask)
        entries.append(Entry(f"{index}.png", folder / f"{index}.png", truth))
    return check_files(Listing(str(folder), tuple(entries)), SilentProgress())


def test_the_truth_comes_with_its_sample(tmp_path: Path) -> None:
    mask = picture(9)
    reader = opened(tmp_path, [encoded(picture(8)), encoded(mask)])
    assert np.array_equal(reader[1].truth, mask)
    assert isinstance(reader.truths[1], TruthFile)  # nothing but its place is kept in memory


def test_broken_truths_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"2 truths are broken: .*1_mask\.png: no picture; .*2_mask\.png: no picture\. Correct"
    ):
        opened(tmp_path, [encoded(picture(8)), b"", b""])


def test_a_truth_that_goes_later_is_an_error(tmp_path: Path) -> None:
    reader = opened(tmp_path, [encoded(picture(8))])
    (tmp_path / "0_mask.png").unlink()
    with pytest.raises(DataError, match=r"0_mask\.png: .*could be read when the data set was opened"):
        reader[0]


def test_the_fingerprint_sees_the_content_of_truths(tmp_path: Path) -> None:
    one = opened(tmp_path, [encoded(picture(8))]).fingerprint()
    assert opened(tmp_path, [encoded(picture(8))]).fingerprint() == one
    assert opened(tmp_path, [encoded(picture(7))]).fingerprint() != one


def test_broken_truths_of_one_name_are_all_counted(tmp_path: Path) -> None:
    entries = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(encoded(picture(0)))
        (tmp_path / name / "mask.png").write_bytes(b"")
        entries.append(
            Entry(f"{name}/0.png", tmp_path / name / "0.png", TruthFile(tmp_path / name / "mask.png", read_mask))
        )
    with pytest.raises(DataError, match=r"2 truths are broken: .*a/mask\.png: .*b/mask\.png: "):
        check_files(Listing("set", tuple(entries)), SilentProgress())
