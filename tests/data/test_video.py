"""Videos as data sets: folders, CSV files with parts, made-up movements, and what is broken in them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.contract import Clip
from edgecv.core.recipe import DataSpec
from edgecv.core.tensor import Array
from edgecv.data.readers import open_reader, open_subset, spec_fingerprint
from edgecv.errors import DataError

LABELS = ("dark", "light")
CLIP = Clip(frames=4, fps=5.0)


def write_video(path: Path, levels: list[int], *, fps: float = 10.0) -> Path:
    """A video of flat gray frames, 32 x 24 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (32, 24))
    for level in levels:
        writer.write(np.full((24, 32, 3), level, np.uint8))
    writer.release()
    return path


def write_frames(folder: Path, levels: list[int]) -> None:
    folder.mkdir(parents=True)
    for number, level in enumerate(levels):
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), np.full((24, 32, 3), level, np.uint8))


def levels_of(clip: Array) -> list[int]:
    return [round(float(frame.mean())) for frame in clip]


def near(found: list[int], wanted: list[int]) -> bool:
    return len(found) == len(wanted) and all(abs(a - b) <= 3 for a, b in zip(found, wanted, strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_video(tmp_path / "dark/a.avi", list(range(10, 110, 10)))
    write_video(tmp_path / "dark/b.avi", [40, 50])
    write_frames(tmp_path / "light/c", [150, 160, 170, 180, 190, 200])
    (tmp_path / "light/notes.txt").write_text("no video")
    return tmp_path


def test_a_folder_a_class_with_videos_and_folders_of_frames(folder: Path) -> None:
    reader = open_reader(DataSpec("videofolder", path="."), base=folder, labels=LABELS, clip=CLIP)
    assert list(reader.ids) == ["dark/a.avi", "dark/b.avi", "light/c"]
    assert list(reader.truths) == [0, 0, 1]
    sample = reader[0]
    assert sample.image.shape == (4, 24, 32, 3)
    # 1 s at 10 fps: 0.6 s at 5 fps in the middle, every second frame.
    assert near(levels_of(sample.image), [20, 40, 60, 80]) or near(levels_of(sample.image), [30, 50, 70, 90])
    assert near(levels_of(reader[1].image), [40, 40, 40, 50]), "a short video begins with its first frame"
    assert near(levels_of(reader[2].image), [160, 170, 180, 190]), "pictures of a folder count as the clip's frames"


def test_without_a_clip_it_says_what_is_missing(folder: Path) -> None:
    reader = open_reader(DataSpec("videofolder", path="."), base=folder, labels=LABELS)
    with pytest.raises(DataError, match="family video"):
        reader[0]


def test_broken_videos_are_left_out_or_refused(folder: Path) -> None:
    (folder / "dark/broken.mp4").write_bytes(b"no video at all")
    (folder / "dark/empty.avi").write_bytes(b"")
    write_frames(folder / "light/mixed", [1, 2])
    assert cv2.imwrite(str(folder / "light/mixed/003.png"), np.zeros((9, 9, 3), np.uint8))
    spec = DataSpec("videofolder", path=".")
    reader = open_reader(spec, base=folder, labels=LABELS, clip=CLIP)
    assert len(reader) == 3
    assert set(reader.skipped) == {"dark/broken.mp4", "dark/empty.avi", "light/mixed"}
    assert "not all of one size" in reader.skipped["light/mixed"]
    with pytest.raises(DataError, match=r"3 of 6 videos cannot be used:\n  dark/broken\.mp4: it is no video"):
        open_reader(DataSpec("videofolder", path=".", strict=True), base=folder, labels=LABELS, clip=CLIP)


def test_a_folder_without_videos(tmp_path: Path) -> None:
    (tmp_path / "dark").mkdir()
    with pytest.raises(DataError, match="no video in them"):
        open_reader(DataSpec("videofolder", path="."), base=tmp_path, labels=("dark",), clip=CLIP)


def test_rows_with_parts_of_videos(folder: Path) -> None:
    (folder / "set.csv").write_text(
        "file,label,start_s,end_s\ndark/a.avi,dark,,0.3\ndark/a.avi,1,0.5,0.9\nlight/c,light,,\n"
    )
    reader = open_reader(DataSpec("video-csv", path="set.csv"), base=folder, labels=LABELS, clip=CLIP)
    assert list(reader.ids) == ["dark/a.avi#0-0.3", "dark/a.avi#0.5-0.9", "light/c"]
    assert list(reader.truths) == [0, 1, 1]
    assert near(levels_of(reader[0].image), [10, 10, 20, 40]) or near(levels_of(reader[0].image), [10, 10, 10, 40])
    assert max(levels_of(reader[0].image)) < 45 < min(levels_of(reader[1].image))
    assert reader.sha256(0) != reader.sha256(1)
    part = open_subset(
        DataSpec("video-csv", path="set.csv"), ["dark/a.avi#0.5-0.9"], base=folder, labels=LABELS, clip=CLIP
    )
    assert np.array_equal(part[0].image, reader[1].image)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("dark/a.avi,dark,zero,1", r"set\.csv:2: start_s is 'zero'"),
        ("dark/a.avi,dark,0.5,0.5", r"set\.csv:2: end_s is 0\.5; it must be more than start_s"),
        ("dark/a.avi,dark,-1,", r"set\.csv:2: start_s is '-1'"),
        ("dark/a.avi,grey,,", r"set\.csv:2: label 'grey' is neither"),
        ("../a.avi,dark,,", r"set\.csv:2: '\.\./a\.avi' leaves"),
        ("light/c,light,,\nlight/c,light,,", r"set\.csv:3: 'light/c' stands in line 2 already"),
        ("", "no rows"),
    ],
)
def test_broken_rows_are_named_by_their_line(folder: Path, rows: str, words: str) -> None:
    (folder / "set.csv").write_text(f"file,label,start_s,end_s\n{rows}\n")
    with pytest.raises(DataError, match=words):
        open_reader(DataSpec("video-csv", path="set.csv"), base=folder, labels=LABELS, clip=CLIP)


def test_a_part_after_the_end_is_left_out_and_a_column_must_be_there(folder: Path) -> None:
    (folder / "set.csv").write_text("file,label,start_s\ndark/a.avi,dark,7\nlight/c,light,\n")
    reader = open_reader(DataSpec("video-csv", path="set.csv"), base=folder, labels=LABELS, clip=CLIP)
    assert reader.skipped == {"dark/a.avi#7-": "it is to start at 7 s, and the video ends at 0.90 s"}
    (folder / "set.csv").write_text("video,label\ndark/a.avi,dark\n")
    with pytest.raises(DataError, match=r"set\.csv:1: 0 columns are named 'file'"):
        open_reader(DataSpec("video-csv", path="set.csv"), base=folder, labels=LABELS, clip=CLIP)


def test_a_changed_video_changes_the_fingerprints(folder: Path) -> None:
    spec = DataSpec("videofolder", path=".")
    quick = spec_fingerprint(spec, base=folder, labels=LABELS)
    whole = open_reader(spec, base=folder, labels=LABELS, clip=CLIP).fingerprint()
    write_video(folder / "dark/a.avi", [5] * 12)
    assert spec_fingerprint(spec, base=folder, labels=LABELS) != quick
    assert open_reader(spec, base=folder, labels=LABELS, clip=CLIP).fingerprint() != whole


def test_a_video_that_shrinks_after_it_was_opened(folder: Path) -> None:
    reader = open_reader(DataSpec("videofolder", path="."), base=folder, labels=LABELS, clip=CLIP)
    write_video(folder / "dark/a.avi", [5, 6])
    with pytest.raises(DataError, match=r"a\.avi: frames are missing"):
        reader[0]


def test_made_up_movements_are_the_same_each_time() -> None:
    spec = DataSpec("scenes-motions", split="all", limit=6)
    reader = open_reader(spec, base=Path(), labels=("still", "left", "wave"), clip=CLIP)
    assert list(reader.truths) == [0, 1, 2, 0, 1, 2] * 2
    assert (reader.ids[0], reader.ids[-1]) == ("train-00000", "test-00005")
    assert reader[4].image.shape == (4, 72, 96, 3)
    again = open_subset(spec, ["train-00004"], base=Path(), labels=("still", "left", "wave"), clip=CLIP)
    assert np.array_equal(again[0].image, reader[4].image)
    assert len({reader.sha256(index) for index in range(12)}) == 12
    assert reader.fingerprint() == open_reader(spec, base=Path(), labels=("still", "left", "wave")).fingerprint()
    with pytest.raises(DataError, match="'jump'"):
        open_reader(spec, base=Path(), labels=("still", "jump"), clip=CLIP)


def test_real_sign_language_videos(shared_data: Path) -> None:
    place = shared_data / "videos/asl_gestures"
    names = sorted(path.stem for path in place.glob("*.mkv"))
    rows = "".join(f"{name}.mkv,{name}\n" for name in names)
    listing = place / "labels.csv"
    assert not listing.exists()
    clip = Clip(frames=8, fps=10.0)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "set.csv").write_text("file,label\n" + rows)
        spec = DataSpec("video-csv", path="set.csv", root=str(place), strict=True)
        reader = open_reader(spec, base=Path(folder), labels=names, clip=clip)
        assert list(reader.truths) == [0, 1, 2, 3, 4]
        for sample in (reader[index] for index in range(5)):
            assert sample.image.shape[0] == 8
            assert sample.image.std() > 10
            assert np.abs(sample.image[0].astype(int) - sample.image[-1]).mean() > 0.5, "something moves"
