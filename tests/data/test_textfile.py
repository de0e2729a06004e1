"""Text data: a csv of files and texts, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader, spec_fingerprint
from edgecv.data.textfile import list_text
from edgecv.errors import DataError

LABELS = ("a", "b", "京", "<space>", "-")


def write(folder: Path, rows: str, *, header: str = "file,text") -> DataSpec:
    (folder / "labels.csv").write_text(f"{header}\n{rows}", encoding="utf-8")
    for name in ("1.png", "2.png", "3.png"):
        cv2.imwrite(str(folder / name), np.full((8, 20, 3), 90, np.uint8))
    return DataSpec("text", path="labels.csv")


def test_texts_are_the_truths(tmp_path: Path) -> None:
    spec = write(tmp_path, "1.png,ab\n2.png,京a b\n\n3.png, b \n")
    reader = open_reader(spec, base=tmp_path, labels=LABELS)
    assert list(reader.truths) == ["ab", "京a b", "b"]
    assert reader[1].truth == "京a b"
    assert reader[1].image.shape == (8, 20, 3)


def test_another_column_and_other_letters_without_labels(tmp_path: Path) -> None:
    spec = write(tmp_path, "1.png,Grüße\n", header="file,words")
    spec = DataSpec("text", path=spec.path, label_column="words")
    assert list_text(spec, base=tmp_path, labels=()).entries[0].truth == "Grüße"
    with pytest.raises(DataError, match="0 columns are named 'text'"):
        list_text(DataSpec("text", path="labels.csv"), base=tmp_path, labels=())


def test_only_picks_by_file_name(tmp_path: Path) -> None:
    spec = write(tmp_path, "1.png,ab\n2.png,xx\n3.png,b\n")
    picked = DataSpec("text", path=spec.path, only="[13].png")
    assert [entry.truth for entry in list_text(picked, base=tmp_path, labels=LABELS).entries] == ["ab", "b"]
    with pytest.raises(DataError, match="fits only: 'z'"):
        list_text(DataSpec("text", path=spec.path, only="z"), base=tmp_path, labels=LABELS)


def test_letters_that_are_no_labels_are_named_with_their_lines(tmp_path: Path) -> None:
    spec = write(tmp_path, "1.png,axb\n2.png,ab\n3.png,é x\n")
    with pytest.raises(DataError) as caught:
        open_reader(spec, base=tmp_path, labels=("a", "b"))
    words = str(caught.value)
    assert "'x' (U+0078) is no label: labels.csv:2, labels.csv:4" in words
    assert "'é' (U+00E9) is no label: labels.csv:4" in words
    assert "a space (label <space>)" in words
    assert caught.value.exit_code == 2


def test_rows_that_cannot_be_used_are_left_out_with_the_reason(tmp_path: Path) -> None:
    spec = write(tmp_path, "1.png,ab\n1.png,b\n2.png,\n../9.png,a\n4.png,a\n3.png,b\n")
    reader = open_reader(spec, base=tmp_path, labels=LABELS)
    assert list(reader.truths) == ["ab", "b"]
    assert "line 2 already" in reader.skipped["labels.csv:3"]
    assert "text is empty" in reader.skipped["labels.csv:4"]
    assert "leaves the folder" in reader.skipped["labels.csv:5"]
    assert "4.png" in reader.skipped
    strict = DataSpec("text", path=spec.path, strict=True)
    with pytest.raises(DataError, match="4 of 6 samples cannot be used"):
        open_reader(strict, base=tmp_path, labels=LABELS)


def test_files_that_are_no_list_of_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list_text(DataSpec("text", path="none.csv"), base=tmp_path, labels=LABELS)
    spec = write(tmp_path, "")
    with pytest.raises(DataError, match="no rows"):
        list_text(spec, base=tmp_path, labels=LABELS)
    (tmp_path / "labels.csv").write_bytes(b"file,text\n1.png,\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        list_text(spec, base=tmp_path, labels=LABELS)


def test_a_changed_text_changes_the_fingerprints(tmp_path: Path) -> None:
    spec = write(tmp_path, "1.png,ab\n")
    before = (
        spec_fingerprint(spec, base=tmp_path, labels=LABELS),
        open_reader(spec, base=tmp_path, labels=LABELS).fingerprint(),
    )
    (tmp_path / "labels.csv").write_text("file,text\n1.png,bb\n", encoding="utf-8")
    after = (
        spec_fingerprint(spec, base=tmp_path, labels=LABELS),
        open_reader(spec, base=tmp_path, labels=LABELS).fingerprint(),
    )
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_real_plates(shared_data: Path) -> None:
    labels = (shared_data / "ocr-mini/plates/charset.txt").read_text(encoding="utf-8").split()
    spec = DataSpec("text", path="ocr-mini/plates/labels.csv")
    listing = list_text(spec, base=shared_data, labels=labels)
    assert len(listing.entries) == 400
    assert listing.entries[0].truth == "京PL3N67"
    assert not listing.skipped
    words = DataSpec("text", path="ocr-mini/words/labels.csv")
    with pytest.raises(DataError, match=r"'/' \(U\+002F\) is no label: labels.csv:4"):
        list_text(words, base=shared_data, labels=labels)
