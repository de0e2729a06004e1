"""Opening what a recipe names, and the quick fingerprint that decides whether a step runs again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.core.recipe import DataSpec
from edgecv.data import imagefile
from edgecv.data.readers import list_files, open_reader, open_subset, spec_fingerprint
from edgecv.errors import DataError

from .conftest import Draw, encoded, picture

FOLDER = DataSpec(kind="imagefolder", path="set")


def test_kinds(draw: Draw, tmp_path: Path, digit_labels: Sequence[str]) -> None:
    draw({"cat": 1})
    (tmp_path / "set.csv").write_text("file,label\nset/cat/000.png,0\n")
    assert len(open_reader(FOLDER, base=tmp_path, labels=["cat"])) == 1
    assert len(open_reader(DataSpec(kind="csv", path="set.csv"), base=tmp_path, labels=["cat"])) == 1
    assert len(open_reader(DataSpec(kind="sklearn-digits", limit=7), base=tmp_path, labels=digit_labels)) == 7
    with pytest.raises(DataError, match="has no files"):
        list_files(DataSpec(kind="sklearn-digits"), base=tmp_path, labels=digit_labels)


def test_subset_reads_no_other_file(draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw({"cat": 5})
    read: list[str] = []
    whole = imagefile.read_bytes
    monkeypatch.setattr(imagefile, "read_bytes", lambda path: (read.append(Path(path).name), whole(path))[1])
    reader = open_subset(replace(FOLDER, limit=1), ["cat/003.png", "cat/999.png"], base=tmp_path, labels=["cat"])
    assert list(reader.ids) == ["cat/003.png"]
    assert read == ["003.png"]


def test_fingerprint_sees_every_change(draw: Draw, tmp_path: Path) -> None:
    folder = draw({"cat": 3, "dog": 3})

    def now() -> str:
        return spec_fingerprint(FOLDER, base=tmp_path)

    seen = [now()]
    assert now() == seen[0]
    path = folder / "cat" / "001.png"
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    seen.append(now())
    path.rename(folder / "dog" / "001b.png")
    seen.append(now())
    path.write_bytes(encoded(picture(50)))
    seen.append(now())
    (folder / "dog" / "000.png").unlink()
    seen.append(now())
    seen.append(spec_fingerprint(replace(FOLDER, limit=3), base=tmp_path))
    assert len(set(seen)) == len(seen)


def test_fingerprint_does_not_depend_on_the_place(draw: Draw, tmp_path: Path) -> None:
    folder = draw({"cat": 2})
    before = spec_fingerprint(FOLDER, base=tmp_path)
    folder.rename(tmp_path / "moved")
    assert spec_fingerprint(replace(FOLDER, path="moved"), base=tmp_path) == before


def test_fingerprint_of_csv_sees_labels_and_files(draw: Draw, tmp_path: Path) -> None:
    draw({"cat": 2})
    spec = DataSpec(kind="csv", path="set.csv")
    seen = []
    for text in ("set/cat/000.png,0", "set/cat/000.png,1", "set/cat/001.png,0", "set/cat/gone.png,0", "a\0b,0"):
        (tmp_path / "set.csv").write_text(f"file,label\n{text}\n")
        seen.append(spec_fingerprint(spec, base=tmp_path))
    (tmp_path / "set.csv").write_text("file,label\nset/cat/000.png,0\n")
    assert spec_fingerprint(spec, base=tmp_path) == seen[0]
    (tmp_path / "set" / "cat" / "000.png").write_bytes(b"other")
    seen.append(spec_fingerprint(spec, base=tmp_path))
    assert len(set(seen)) == len(seen)


def test_fingerprint_of_digits(tmp_path: Path) -> None:
    seen = {
        spec_fingerprint(DataSpec(kind="sklearn-digits", split=split), base=tmp_path) for split in ("train", "test")
    }
    assert len(seen) == 2


def test_fingerprint_of_a_missing_set(tmp_path: Path) -> None:
    for spec in (FOLDER, DataSpec(kind="csv", path="set.csv")):
        with pytest.raises(DataError, match="does not exist"):
            spec_fingerprint(spec, base=tmp_path)


def test_fingerprint_is_quick(shared_data: Path) -> None:
    spec = DataSpec(kind="imagefolder", path="cifar10-mini/train")
    times_s = []
    for _ in range(3):
        started_s = time.process_time()
        spec_fingerprint(spec, base=shared_data)
        times_s.append(time.process_time() - started_s)
    assert min(times_s) < 0.25  # 0.03 s for 5000 files on one core; the rest is for slow machines


def test_fingerprint_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from edgecv.core.recipe import DataSpec\n"
        "from edgecv.data.readers import spec_fingerprint\n"
        "import edgecv.data.calibration, edgecv.data.lint\n"
        "spec_fingerprint(DataSpec(kind='sklearn-digits'), base=Path('.'))\n"
        "print([name for name in ('torch', 'sklearn', 'yaml', 'pydantic', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_cifar10(shared_data: Path, cifar_labels: Sequence[str]) -> None:
    spec = DataSpec(kind="imagefolder", path="cifar10-mini/test", limit=100)
    reader = open_reader(spec, base=shared_data, labels=cifar_labels)
    assert len(reader) == 100
    assert [list(reader.truths).count(index) for index in range(10)] == [10] * 10
    assert reader.ids[0].startswith("airplane/")
    assert reader[0].image.shape == (32, 32, 3)
    assert not reader.skipped
