"""Readers over files: the check on opening, skips, strictness, hashes, limits and memory."""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.progress import PlainProgress, SilentProgress
from edgecv.core.recipe import DataSpec
from edgecv.data import imagefile
from edgecv.data.files import Entry, Listing, check_files, even_pick, open_files
from edgecv.data.readers import LabelledReader, open_reader
from edgecv.errors import DataError

from .conftest import Draw, encoded, picture
from .test_imagefile import noisy_jpeg


def open_folder(folder: Path, labels: tuple[str, ...] = ("cat",), *, strict: bool = False) -> LabelledReader:
    return open_reader(DataSpec(kind="imagefolder", path=str(folder), strict=strict), base=folder, labels=labels)


def test_broken_files_are_skipped_with_their_reasons(broken: Path) -> None:
    reader = open_folder(broken)
    assert list(reader.ids) == ["cat/000.png", "cat/001.png"]
    assert set(reader.skipped) == {"cat/cut.jpg", "cat/empty.jpg", "cat/text.jpg"}
    assert "cut short" in reader.skipped["cat/cut.jpg"]
    assert "empty" in reader.skipped["cat/empty.jpg"]
    assert "not an image" in reader.skipped["cat/text.jpg"]


def test_strict_refuses_and_lists_them_all(broken: Path) -> None:
    with pytest.raises(DataError, match="3 of 5 samples cannot be used") as caught:
        open_folder(broken, strict=True)
    for name in ("cut.jpg", "empty.jpg", "text.jpg"):
        assert f"cat/{name}: " in str(caught.value)


def test_nothing_readable_is_an_error(broken: Path) -> None:
    for path in broken.glob("cat/*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"no image that can be read.*empty"):
        open_folder(broken)


def test_notes_are_told(draw: Draw, capsys: pytest.CaptureFixture[str]) -> None:
    folder = draw({"n01": 1, "n02": 1})
    spec = DataSpec(kind="imagefolder", path=str(folder))
    reader = open_reader(spec, base=folder, labels=["cat", "dog"], progress=PlainProgress())
    assert "matched in sorted order: n01 = cat" in capsys.readouterr().err
    assert len(reader.notes) == 1


def test_skips_are_told(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = DataSpec(kind="imagefolder", path=str(broken))
    open_reader(spec, base=broken, labels=["cat"], progress=PlainProgress())
    assert "3 of 5 samples left out" in capsys.readouterr().err


def test_decoders_are_quiet(broken: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (broken / "cat" / "noisy.jpg").write_bytes(noisy_jpeg())
    reader = open_folder(broken)
    assert "cat/noisy.jpg" in reader.ids
    assert [reader[index].image.ndim for index in range(len(reader))] == [3, 3, 3]
    assert capfd.readouterr().err == ""


def test_samples_and_hashes(draw: Draw) -> None:
    folder = draw({"cat": 2, "dog": 1})
    reader = open_folder(folder, ("cat", "dog"))
    sample = reader[2]
    assert (sample.id, sample.truth, list(reader.truths)) == ("dog/000.png", 1, [0, 0, 1])
    assert np.array_equal(sample.image, picture(2))
    assert [item.id for item in reader] == list(reader.ids)
    assert reader.sha256(2) == hashlib.sha256((folder / "dog" / "000.png").read_bytes()).hexdigest()
    with pytest.raises(IndexError):
        reader[3]


def test_fingerprint_follows_content_and_classes(draw: Draw) -> None:
    labels = ("cat", "dog")
    one = open_folder(draw({"cat": 2, "dog": 1}), labels).fingerprint()
    assert open_folder(draw({"cat": 2, "dog": 1}, name="copy"), labels).fingerprint() == one
    assert open_folder(draw({"cat": 2, "dog": 1}, name="other", first=9), labels).fingerprint() != one
    assert open_folder(draw({"cat": 2, "dog": 1}, name="swapped"), ("dog", "cat")).fingerprint() != one


def test_file_that_breaks_later_is_named(draw: Draw) -> None:
    folder = draw({"cat": 1})
    reader = open_folder(folder)
    (folder / "cat" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"000\.png: the file is empty.*when the data set was opened"):
        reader[0]


def test_even_pick_is_balanced_and_spread() -> None:
    truths = [index % 10 for index in range(200)]
    picked = even_pick(truths, 20)
    assert Counter(truths[index] for index in picked) == dict.fromkeys(range(10), 2)
    assert picked == sorted(picked)
    assert max(picked) > 100
    assert even_pick(truths, None) == even_pick(truths, 500) == list(range(200))
    assert even_pick([0] * 10, 5) == [0, 2, 4, 6, 8]


def test_limit_reads_only_what_it_picks(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = draw({"cat": 6, "dog": 6})
    read: list[str] = []
    whole = imagefile.read_bytes
    monkeypatch.setattr(imagefile, "read_bytes", lambda path: (read.append(str(path)), whole(path))[1])
    reader = open_reader(DataSpec(kind="imagefolder", path=".", limit=4), base=folder, labels=["cat", "dog"])
    assert list(reader.truths) == [0, 0, 1, 1]
    assert len(read) == 4


def test_large_sets_are_checked_in_batches(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(encoded(picture(0)))
    gone = tmp_path / "gone.png"
    entries = tuple(Entry(f"{index}", gone if index == 70 else path, 0) for index in range(100))
    reader = check_files(Listing("many", entries), SilentProgress())
    assert len(reader) == 99
    assert list(reader.skipped) == ["70"]
    assert list(reader.ids) == [f"{index}" for index in range(100) if index != 70]


def test_check_files_may_be_empty_but_open_files_not() -> None:
    empty = Listing("nowhere", ())
    assert len(check_files(empty, SilentProgress())) == 0
    with pytest.raises(DataError, match="nowhere has no image"):
        open_files(empty, limit=None, strict=False, progress=SilentProgress())


def test_reader_keeps_no_picture(draw: Draw) -> None:
    reader = open_folder(draw({"cat": 20}))
    given = [weakref.ref(reader[index].image) for index in range(len(reader))]
    gc.collect()
    assert [image() for image in given] == [None] * 20
