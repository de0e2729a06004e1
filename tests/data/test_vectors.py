"""Rows of numbers from a CSV file: with and without a header, lines that cannot be used, and the real tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import LabelledReader, open_reader
from edgecv.errors import DataError

LABELS = ["open", "closed", "7"]


def opened(folder: Path, text: str, **settings: Any) -> LabelledReader:
    (folder / "set.csv").write_text(text, encoding="utf-8")
    return open_reader(DataSpec(kind="vectors", path="set.csv", **settings), base=folder, labels=LABELS)


def test_without_a_header_the_class_stands_first(tmp_path: Path) -> None:
    reader = opened(tmp_path, "\ufeff1,0.5,-1e-3\n\nopen, 2 ,3\n7,4,5\n")
    assert list(reader.truths) == [1, 0, 2]
    assert list(reader.ids) == ["set.csv:1", "set.csv:3", "set.csv:4"]
    np.testing.assert_array_equal(reader[1].image, np.array([2, 3], np.float32))
    assert reader[0].image.dtype == np.float32
    assert reader.skipped == {}


def test_a_header_names_the_column_of_the_class(tmp_path: Path) -> None:
    reader = opened(tmp_path, "a,label,b\n1,open,2\n3,closed,4\n")
    assert [sample.truth for sample in (reader[0], reader[1])] == [0, 1]
    np.testing.assert_array_equal(reader[1].image, [3, 4])
    other = opened(tmp_path, "kind,a\nopen,2\n", label_column="kind")
    assert len(other) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0,1", "there are 1 numbers; 2 are needed"),
        ("0,1,2,3", "there are 3 numbers; 2 are needed"),
        ("0,1,two", "number 2 is 'two'; write it like 0.5"),
        ("0,nan,1", "number 1 is 'nan'; it must be finite"),
        ("0,1e300,1", "number 1 is '1e300'; it must be finite"),
        ("0,,1", "number 1 is ''"),
        ("3,1,2", "label '3' is neither a class name nor an index within 0..2"),
        (",1,2", "the label is empty"),
    ],
)
def test_a_line_that_fails_is_named(tmp_path: Path, line: str, reason: str) -> None:
    reader = opened(tmp_path, f"0,1,2\n{line}\n1,3,4\n")
    assert len(reader) == 2
    assert list(reader.skipped) == ["set.csv:2"]
    assert reason in reader.skipped["set.csv:2"]
    with pytest.raises(DataError, match=r"strict is set: set\.csv:2: ") as caught:
        opened(tmp_path, f"0,1,2\n{line}\n1,3,4\n", strict=True)
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", "label,a\n", "0,x\n", "0\n", 'open,"1\n'])
def test_nothing_usable_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"set\.csv"):
        opened(tmp_path, text)


def test_no_text_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_bytes(b"0,\xff\xfe,1\n")
    spec = DataSpec(kind="vectors", path="set.csv")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        open_reader(spec, base=tmp_path, labels=LABELS)
    (tmp_path / "set.csv").unlink()
    with pytest.raises(DataError, match="does not exist"):
        open_reader(spec, base=tmp_path, labels=LABELS)


def test_limit_is_even_over_the_classes(tmp_path: Path) -> None:
    text = "".join(f"{index % 3},{index}\n" for index in range(30))
    assert sorted(opened(tmp_path, text, limit=6).truths) == [0, 0, 1, 1, 2, 2]


def test_the_hash_sees_numbers_and_classes(tmp_path: Path) -> None:
    prints = {opened(tmp_path, text).fingerprint() for text in ("0,1,2\n", "1,1,2\n", "0,1,3\n", "0,1,2\n")}
    assert len(prints) == 3
    reader = opened(tmp_path, "0,1,2\n")
    reader[0].image[:] = 9  # the caller's own
    assert reader[0].image.tolist() == [1, 2]


def test_gestures(shared_data: Path) -> None:
    for name, count, numbers in (("keypoint", 958, 42), ("point_history", 1060, 32)):
        spec = DataSpec(kind="vectors", path=str(shared_data / f"gestures-mini/{name}.csv"), strict=True)
        reader = open_reader(spec, base=Path(), labels=["a", "b", "c", "d"])
        assert len(reader) == count
        assert reader[0].image.shape == (numbers,)
        assert set(reader.truths) == {0, 1, 2, 3}
