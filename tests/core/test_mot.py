"""MOT text files: what is read, and which line is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.core.mot import mot_line, read_mot
from edgecv.errors import DataError


def test_a_line_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(mot_line(2, 5, (10.25, 20.5, 40.0, 80.75), 0.5) + "\n" + mot_line(1, 4, (0, 0, 5, 5), 1.0) + "\n")
    table = read_mot(path)
    assert table.frames.tolist() == [1, 2]
    assert table.ids.tolist() == [4, 5]
    np.testing.assert_allclose(table.boxes[1], [10.25, 20.5, 40.0, 80.75], atol=0.011)
    np.testing.assert_allclose(table.scores, [1.0, 0.5])


def test_spaces_short_lines_and_flags(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_text("1 1 10 20 30 40\n\n1,2,10,20,30,40,0,1,1\n1,3,10,20,30,40,1,7,0.5\n")
    table = read_mot(path)
    assert table.ids.tolist() == [1, 3], "a ground-truth line with flag 0 is left out"
    assert table.classes.tolist() == [-1, 7]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1,2,3", "has 3 numbers"),
        ("1,2,a,4,5,6", "only numbers"),
        ("0,2,3,4,5,6", "the frame is 0"),
        ("1.5,2,3,4,5,6", "the frame is 1.5"),
        ("1,2,3,4,-5,6", "width and height are -5 and 6"),
        ("1,2,nan,4,5,6", "not finite"),
        ("99999999,2,3,4,5,6", "the frame is 99999999"),
    ],
)
def test_wrong_lines_are_named(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "det.txt"
    path.write_text(f"1,1,1,1,1,1\n{line}\n")
    with pytest.raises(DataError) as caught:
        read_mot(path)
    assert f"{path}:2" in str(caught.value)
    assert words in str(caught.value)


def test_no_text_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_mot(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_mot(tmp_path / "b.txt")
