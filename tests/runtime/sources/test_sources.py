"""Addresses, options, and what is read from files and folders, whole and broken ones."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.errors import CameraError, ToolchainError, UsageError
from edgecv.runtime.camera import Camera, EndOfStream
from edgecv.runtime.sources import parse
from edgecv.runtime.sources.capture import csi_pipeline
from edgecv.runtime.sources.options import CameraOptions, camera_options


def frames_of(address: str, **options: object) -> tuple[list[int], Camera]:
    with Camera(lambda: parse(address, options)) as camera:
        seen: list[int] = []
        with contextlib.suppress(EndOfStream):
            while True:
                seen.append(camera.read(timeout_s=5).index)
        return seen, camera


def video(
    path: Path, frames: int, size: tuple[int, int] = (96, 64), *, code: str = "MJPG", noise: bool = False
) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), 25.0, size)
    assert writer.isOpened()
    shape = (size[1], size[0], 3)
    base = np.random.default_rng(0).integers(0, 255, shape, np.uint8) if noise else np.zeros(shape, np.uint8)
    for index in range(frames):
        writer.write(np.roll(base, index * 3, 1) if noise else np.full(shape, index * 3 % 255, np.uint8))
    writer.release()
    return path


def test_a_video_is_read_to_its_end_with_its_own_times(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 20)
    with Camera(lambda: parse(str(path))) as camera:
        assert camera.facts.size == (64, 96)
        assert camera.facts.fps == 25.0
        assert camera.facts.frames == 20
        assert not camera.facts.live
        times = [camera.read().media_s for _ in range(20)]
    np.testing.assert_allclose(np.diff(times), 0.04)


def test_a_looping_video_goes_on(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 5)
    with Camera(lambda: parse(str(path), {"loop": True})) as camera:
        assert [camera.read().index for _ in range(17)] == list(range(17))


def test_a_file_at_its_own_rate_is_a_live_camera(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 10)
    with Camera(lambda: parse(str(path), {"pace": "realtime"})) as camera:
        assert camera.facts.live
        started_s = time.monotonic()
        frames = [camera.read() for _ in range(6)]
        assert time.monotonic() - started_s >= 4 / 25
    assert frames[0].media_s is None


def test_a_file_at_its_own_rate_ends_at_its_end(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 10)
    seen, camera = frames_of(str(path), pace="realtime")
    assert len(seen) + camera.counts.dropped == 10
    assert camera.counts.reconnects == 0


def test_what_is_not_read_in_time_is_dropped_at_the_own_rate(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 30)
    with Camera(lambda: parse(str(path), {"pace": "realtime", "fps": 100}), queue=2) as camera:
        camera.read()
        time.sleep(0.5)
        assert camera.read().index >= 27
        assert camera.counts.dropped >= 20


@pytest.mark.parametrize("keep", [0.5, 0.7, 0.9])
def test_a_truncated_video_says_that_it_was_cut_off(tmp_path: Path, keep: float) -> None:
    path = video(tmp_path / "a.avi", 40)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    seen, camera = frames_of(str(path))
    assert 40 * keep - 15 <= len(seen) < 40
    assert camera.counts.corrupt >= 1


def test_a_truncated_video_in_a_loop_is_told_once_and_goes_on(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with Camera(lambda: parse(str(path), {"loop": True})) as camera:
        times = [camera.read().media_s or 0.0 for _ in range(100)]
        assert camera.counts.corrupt == 1
        assert camera.counts.clock_steps == 0
    np.testing.assert_allclose(np.diff(times), 0.04, atol=1e-6)


def test_an_mp4_without_its_index_does_not_open(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 40, code="mp4v")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(CameraError, match="does not open"):
        Camera(lambda: parse(str(path))).open()


def damage(path: Path, marker: bytes, skip: int) -> None:
    """Make frames 10, 20 and 30 impossible to decode: ``skip`` bytes after its marker, each loses its header."""
    parts = path.read_bytes().split(marker)
    for index in (11, 21, 31):
        parts[index] = parts[index][:skip] + b"\xaa" * 300 + parts[index][skip + 300 :]
    path.write_bytes(marker.join(parts))


@pytest.mark.parametrize(
    ("ending", "code", "marker", "skip"), [("mp4", "mp4v", b"\x00\x00\x01\xb6", 0), ("avi", "MJPG", b"00dc", 4)]
)
def test_damaged_frames_are_counted_and_the_rest_is_read(
    tmp_path: Path, ending: str, code: str, marker: bytes, skip: int
) -> None:
    path = video(tmp_path / f"a.{ending}", 60, size=(160, 120), code=code, noise=True)
    damage(path, marker, skip)
    with Camera(lambda: parse(str(path))) as camera:
        times = []
        with contextlib.suppress(EndOfStream):
            while True:
                times.append(camera.read(timeout_s=5).media_s)
    assert camera.counts.corrupt == 60 - len(times)
    assert 1 <= camera.counts.corrupt <= 10, "one damaged frame does not end a video"
    steps = np.diff(np.array(times, float)) / 0.04
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert steps.min() > 0.5
    assert steps.max() > 1.5, "the time of a frame that was left out passes all the same"


def test_no_video_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"this is no video" * 100)
    with pytest.raises(CameraError, match="does not open"):
        Camera(lambda: parse(str(path))).open()


def test_a_folder_with_a_broken_picture(tmp_path: Path) -> None:
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((8, 8 + index, 3), np.uint8))
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "note.txt").write_text("x")
    seen, camera = frames_of(str(tmp_path))
    assert seen == [0, 1, 2]
    assert camera.counts.corrupt == 1
    assert camera.counts.size_changes == 2
    alone, _ = frames_of(str(tmp_path / "0.png"))
    assert alone == [0]


def test_a_picture_that_was_cut_off_is_not_filled_up(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("a.jpg", "b.jpg", "c.png"):
        cv2.imwrite(str(tmp_path / name), noise)
    for name in ("b.jpg", "c.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:2000])
    seen, camera = frames_of(str(tmp_path))
    assert seen == [0]
    assert camera.counts.corrupt == 2


@pytest.mark.parametrize("pace", ["fast", "realtime"])
def test_a_folder_of_nothing_but_broken_pictures_ends(tmp_path: Path, pace: str) -> None:
    for index in range(150):
        (tmp_path / f"{index:03}.png").write_bytes(b"no picture")
    seen, camera = frames_of(str(tmp_path), pace=pace)
    assert seen == []
    assert camera.counts.corrupt == 150
    assert camera.counts.reconnects == 0


@pytest.mark.parametrize(
    ("name", "frames", "size"),
    [
        ("one-by-one-person-detection.mp4", 1394, (432, 768)),
        ("bottle-detection.mp4", 1189, (360, 640)),
        ("people-corridor.mp4", 460, (450, 800)),
        ("street-night-8frames.mp4", 8, (1080, 1920)),
        ("two-persons-indoor.mp4", 72, (1080, 1920)),
    ],
)
def test_real_videos_are_read_whole(shared_data: Path, name: str, frames: int, size: tuple[int, int]) -> None:
    seen, camera = frames_of(str(shared_data / "videos" / name))
    assert seen == list(range(frames))
    assert camera.facts.size == size
    counts = camera.counts
    assert counts.corrupt == counts.dropped == counts.clock_steps == counts.size_changes == 0


def test_frames_of_uneven_distance_keep_their_times(shared_data: Path) -> None:
    with Camera(lambda: parse(str(shared_data / "videos" / "two-persons-indoor.mp4"))) as camera:
        gaps = np.diff([camera.read().media_s or 0.0 for _ in range(72)])
    assert gaps.min() == pytest.approx(1 / 30, abs=1e-4)
    assert gaps.max() == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_uneven_frames_are_not_taken_for_missing_ones(tmp_path: Path, ending: str) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / f"a.{ending}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stamps = [100 * index + (60 if index % 4 == 3 else 0) + (1000 if index > 20 else 0) for index in range(40)]
        for stamp in stamps:
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), stamp % 255, np.uint8), format="bgr24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with Camera(lambda: parse(str(path))) as camera:
        assert camera.facts.frames == (40 if ending == "mp4" else None), "mkv does not count its frames"
        times = [camera.read().media_s or 0.0 for _ in range(40)]
        with pytest.raises(EndOfStream):
            camera.read()
    assert camera.counts.corrupt == camera.counts.clock_steps == 0
    np.testing.assert_allclose(times, np.array(stamps) / 1000, atol=2e-3)


def test_the_option_fps_sets_the_times(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 5)
    with Camera(lambda: parse(str(path), {"fps": 10})) as camera:
        np.testing.assert_allclose([camera.read().media_s for _ in range(5)], [0, 0.1, 0.2, 0.3, 0.4])


def test_no_chatter_reaches_the_terminal(tmp_path: Path) -> None:
    damaged = video(tmp_path / "a.mp4", 60, size=(160, 120), code="mp4v", noise=True)
    damage(damaged, b"\x00\x00\x01\xb6", 0)
    (tmp_path / "none.mp4").write_bytes(b"this is no video" * 100)
    script = f"""
import contextlib
from edgecv.errors import CameraError
from edgecv.runtime.camera import Camera, EndOfStream
from edgecv.runtime.sources import parse
for address in ({str(damaged)!r}, {str(tmp_path / "none.mp4")!r}, "/dev/video97", "http://127.0.0.1:9/x"):
    with contextlib.suppress(CameraError, EndOfStream), Camera(lambda: parse(address)) as camera:
        while True:
            camera.read(timeout_s=5)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nothing.mp4", "is no file, folder or address; allowed: 0 or /dev/video0"),
        ("csi:x", "csi:x has no such number"),
        ("synthetic:size=3", "no size=3"),
        ("synthetic:objects", "not NAME=VALUE"),
        ("synthetic:speed=3", "no speed=3; allowed: size"),
    ],
)
def test_wrong_addresses(address: str, words: str) -> None:
    with pytest.raises((UsageError, ToolchainError)) as caught:
        parse(address)
    assert words in str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no picture"):
        Camera(lambda: parse(str(tmp_path))).open()


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(CameraError, match="/dev/video97 does not open"):
        Camera(lambda: parse("/dev/video97")).open()


@pytest.mark.skipif(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV has GStreamer")
def test_gstreamer_is_missing_here() -> None:
    for address in ("gst:videotestsrc ! appsink", "csi:0"):
        with pytest.raises(ToolchainError, match="without GStreamer"):
            parse(address)


def test_the_jetson_pipeline() -> None:
    text = csi_pipeline(1, CameraOptions(size=(1920, 1080), fps=60))
    assert text.startswith("nvarguscamerasrc sensor-id=1 ! ")
    assert "width=1920, height=1080, framerate=60/1" in text
    assert text.endswith("appsink drop=true max-buffers=1 sync=false")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fsp": 3}, "no option 'fsp'; allowed: size, fps"),
        ({"size": "640"}, "WIDTHxHEIGHT"),
        ({"size": "0x5"}, "1 or more"),
        ({"fps": 0}, "above 0"),
        ({"pixel_format": "MJPEG"}, "four letters"),
        ({"pace": "slow"}, "allowed: fast, realtime"),
    ],
)
def test_wrong_options(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        camera_options(values)
    assert words in str(caught.value)
