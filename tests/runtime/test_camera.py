"""Cameras that come and go: the three ways to read, stalls, reconnection, counts, and an end in bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgecv.core.frame import Frame
from edgecv.core.stream import StreamFacts
from edgecv.errors import CameraError, CorruptFrameError
from edgecv.runtime.camera import Camera, EndOfStream, Persistence

QUICK = Persistence(stall_s=0.15, open_s=0.5, first_s=0.01, factor=1.5, longest_s=0.05)


@dataclass
class Script:
    """A source that does what its list says: a frame's size, an error to raise, a pause, "hang" or "end"."""

    steps: list[object]
    live: bool = True
    stamps: list[float] | None = None
    media: list[float] | None = None
    fps: float = 100.0
    notes: tuple[str, ...] = ()
    released: threading.Event = field(default_factory=threading.Event)
    index: int = 0
    closed: int = 0

    def open(self) -> StreamFacts:
        if self.steps and isinstance(self.steps[0], CameraError):
            raise self.steps[0]
        return StreamFacts("script", None, self.fps, self.live)

    def read(self) -> Frame | None:
        while True:
            step = self.steps.pop(0) if self.steps else "end"
            if step == "end":
                return None
            if step == "hang":
                self.released.wait(20)
                continue
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                time.sleep(step)
                continue
            stamp_s = self.stamps[self.index] if self.stamps else time.monotonic()
            self.index += 1
            size = step if isinstance(step, int) else 8
            media_s = self.media[self.index - 1] if self.media else None
            return Frame(np.zeros((size, size, 3), np.uint8), stamp_s, self.index - 1, "script", media_s)

    def close(self) -> None:
        self.closed += 1


def camera_of(*scripts: Script, **options: object) -> Camera:
    """A camera that gets one script after the other, the last one again and again."""
    waiting = list(scripts)

    def make() -> Script:
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return Camera(make, persistence=options.pop("persistence", QUICK), **options)  # type: ignore[arg-type]


def until(holds: Callable[[], bool], within_s: float = 5.0) -> bool:
    end_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.005)
    return True


def test_a_file_gives_every_frame_in_order_however_slow_its_reader() -> None:
    with camera_of(Script([8] * 30, live=False), queue=2) as camera:
        seen = []
        for _ in range(30):
            seen.append(camera.read().index)
            time.sleep(0.002)
        with pytest.raises(EndOfStream):
            camera.read()
    assert seen == list(range(30))
    assert camera.counts.frames == 30
    assert camera.counts.dropped == camera.counts.stalls == camera.counts.reconnects == 0


def test_latest_skips_what_is_old_and_counts_it() -> None:
    steps: list[object] = [8, 0.005] * 40 + ["hang"]
    script = Script(steps)
    with camera_of(script, persistence=Persistence(stall_s=30)) as camera:
        assert until(lambda: script.index == 40)
        frame = camera.read_latest(max_age_s=5, timeout_s=1)
        assert frame is not None
        assert frame.index == 39
        assert camera.counts.dropped == 39
        assert camera.read_latest(max_age_s=5, timeout_s=0.02) is None
        script.released.set()


def test_latest_refuses_frames_beyond_the_age() -> None:
    script = Script([8, "hang"], stamps=[time.monotonic() - 10])
    with camera_of(script, persistence=Persistence(stall_s=30)) as camera:
        assert camera.read_latest(max_age_s=1, timeout_s=0.1) is None
        assert camera.counts.dropped == 1
        script.released.set()


def test_async_read_comes_back_in_time() -> None:
    script = Script(["hang"])
    with camera_of(script, persistence=Persistence(stall_s=30)) as camera:
        started_s = time.monotonic()
        assert camera.async_read(0.05) is None
        assert time.monotonic() - started_s < 1
        with pytest.raises(CameraError, match="no frame within"):
            camera.read(timeout_s=0.02)
        script.released.set()


def test_a_live_camera_never_queues_up_a_delay() -> None:
    script = Script([8] * 200 + ["hang"])
    with camera_of(script, queue=3, persistence=Persistence(stall_s=30)) as camera:
        assert until(lambda: script.index == 200 and camera.counts.dropped == 197)
        assert [camera.read().index for _ in range(3)] == [197, 198, 199]
        script.released.set()


def test_gone_and_back_twenty_times() -> None:
    scripts = [Script([8, 8, CameraError("unplugged")]) for _ in range(20)] + [Script([8] * 5 + ["hang"])]
    events: list[tuple[str, str]] = []
    with camera_of(*scripts, queue=50, on_event=lambda kind, text: events.append((kind, text))) as camera:
        seen = [camera.read(timeout_s=5).index for _ in range(45)]
        assert until(lambda: camera.counts.reconnects == 20), camera.counts
        scripts[-1].released.set()
    assert seen == list(range(45)), "frames are numbered on over reconnections"
    assert [kind for kind, _ in events].count("camera lost") >= 20
    assert all(script.closed >= 1 for script in scripts[:20])


def test_a_hanging_driver_is_noticed_and_left_behind() -> None:
    stuck, fresh = Script([8, "hang"]), Script([8] * 3 + ["hang"])
    with camera_of(stuck, fresh) as camera:
        started_s = time.monotonic()
        for _ in range(4):
            camera.read(timeout_s=3)
        assert time.monotonic() - started_s < 2
        assert camera.counts.stalls >= 1
        stuck.released.set()
        fresh.released.set()


def test_threads_that_hang_do_not_pile_up() -> None:
    scripts: list[Script] = []

    def make() -> Script:
        scripts.append(Script([8, "hang"] if not scripts else ["hang"]))
        return scripts[-1]

    camera = Camera(make, persistence=Persistence(stall_s=0.02, open_s=0.5, first_s=0.001, longest_s=0.002))
    camera.open()
    time.sleep(0.6)
    assert len(scripts) == 4, "at most four threads are left behind at a time"
    started_s = time.monotonic()
    camera.close()
    assert time.monotonic() - started_s < 3
    for script in scripts:
        script.released.set()


def test_corrupt_frames_and_other_sizes_and_times_are_counted() -> None:
    steps: list[object] = [8, CorruptFrameError("bad"), 8, 16, CorruptFrameError("bad"), 16]
    now_s = time.monotonic()
    script = Script(steps, live=False, stamps=[now_s - 4, now_s - 3, now_s - 3.5, now_s - 3.4])
    with camera_of(script) as camera:
        frames = [camera.read() for _ in range(4)]
        with pytest.raises(EndOfStream):
            camera.read()
    assert camera.counts.corrupt == 2
    assert camera.counts.size_changes == 1
    assert camera.counts.clock_steps == 1
    times = [frame.captured_s for frame in frames]
    assert times == sorted(times), "time never goes back"


def test_a_camera_that_does_not_come_back_is_lost() -> None:
    limited = Persistence(stall_s=0.1, open_s=0.2, first_s=0.01, longest_s=0.01, attempts=3)
    with camera_of(Script([8, CameraError("gone")]), Script([CameraError("no answer")]), persistence=limited) as camera:
        camera.read()
        with pytest.raises(CameraError, match="lost after 4 attempts: no answer"):
            camera.read(timeout_s=5)
        assert camera.counts.failed_connects == 3


def test_a_camera_that_is_not_there_says_so_at_once() -> None:
    with pytest.raises(CameraError, match="no such device"):
        camera_of(Script([CameraError("no such device")])).open()


def test_pauses_grow_up_to_the_longest() -> None:
    import random

    plan, draws = Persistence(first_s=1, factor=2, longest_s=10), random.Random(0)
    pauses = [plan.pause_s(failures, draws) for failures in range(1, 10)]
    assert all(0.9 * want <= got <= want for got, want in zip(pauses, [1, 2, 4, 8, 10, 10, 10, 10, 10], strict=True))
    assert plan.pause_s(100_000, draws) <= 10


def test_a_clock_set_back_is_one_step_and_time_goes_on_at_its_pace() -> None:
    now_s = time.monotonic()
    stamps = [now_s - 20, now_s - 19.9, *(now_s - 1000 + 0.01 * index for index in range(10))]
    with camera_of(Script([8] * 12, stamps=stamps), queue=20) as camera:
        times = [camera.read().captured_s for _ in range(12)]
    assert camera.counts.clock_steps == 1
    np.testing.assert_allclose(np.diff(times[2:]), 0.01, atol=1e-6)
    assert now_s <= times[2] <= time.monotonic(), "after a step, time goes on at the arrival of the frame"


def test_a_stamp_from_the_future_does_not_stop_the_time() -> None:
    now_s = time.monotonic()
    with camera_of(Script([8] * 4, live=False, stamps=[now_s - 1, now_s + 3600, now_s + 3600.01, now_s])) as camera:
        frames = [camera.read() for _ in range(4)]
    assert camera.counts.clock_steps == 2, "ahead, and back"
    assert all(frame.captured_s <= time.monotonic() + 0.5 for frame in frames)
    assert [frame.captured_s for frame in frames] == sorted(frame.captured_s for frame in frames)


def test_the_time_in_the_stream_never_goes_back() -> None:
    with camera_of(Script([8] * 5, live=False, media=[0.0, 0.04, 0.08, 0.0, 0.04])) as camera:
        times = [camera.read().media_s for _ in range(5)]
    assert camera.counts.clock_steps == 1
    np.testing.assert_allclose(times, [0.0, 0.04, 0.08, 0.09, 0.13])


def test_the_end_of_a_stream_is_no_failure_even_of_a_live_one() -> None:
    with camera_of(Script([8] * 3), queue=8) as camera:
        assert [camera.read().index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(EndOfStream):
            camera.read(timeout_s=5)
        assert camera.counts.reconnects == camera.counts.failed_connects == camera.counts.stalls == 0


def test_a_live_camera_that_gives_only_damaged_frames_stalls() -> None:
    damaged: list[object] = [step for _ in range(60) for step in (CorruptFrameError("bad"), 0.01)]
    with camera_of(Script([8, *damaged]), Script([8])) as camera:
        camera.read()
        camera.read(timeout_s=3)
        assert camera.counts.stalls == 1
        assert camera.counts.corrupt >= 5


def test_a_slow_camera_is_not_taken_for_a_stalled_one() -> None:
    steps: list[object] = [8, 0.4, 8, 0.4, 8]
    with camera_of(Script(steps, fps=2.0), persistence=Persistence(stall_s=0.1)) as camera:
        for _ in range(3):
            camera.read(timeout_s=3)
        assert camera.counts.stalls == 0


def test_what_differs_and_what_is_damaged_is_told_once() -> None:
    bad: list[object] = [CorruptFrameError("bad")] * 50
    events: list[tuple[str, str]] = []
    script = Script([8, *bad, 8], live=False, notes=("it gives 640x480, 1280x720 was asked for",))
    with camera_of(script, on_event=lambda *event: events.append(event)) as camera:
        camera.read()
        camera.read()
        with pytest.raises(EndOfStream):
            camera.read()
    assert events == [("camera note", "it gives 640x480, 1280x720 was asked for"), ("camera corrupt", "bad")]
    assert camera.counts.corrupt == 50


def test_one_who_is_told_may_take_long_or_ask_the_camera() -> None:
    told = threading.Event()
    script = Script([8, 16] + [16, 0.005] * 100)

    def slow(kind: str, text: str) -> None:
        assert camera.async_read(0) is not None
        told.set()
        time.sleep(0.3)

    camera = camera_of(script, on_event=slow, persistence=Persistence(stall_s=30))
    with camera:
        assert told.wait(3)
        started_s = time.monotonic()
        camera.async_read(0.05)
        assert time.monotonic() - started_s < 0.2


def test_a_source_that_fails_to_close_is_noted() -> None:
    class Sticky(Script):
        def close(self) -> None:
            raise RuntimeError("rtsp://user:hunter2@host is stuck")

    events: list[tuple[str, str]] = []
    with camera_of(Sticky([8], live=False), on_event=lambda *event: events.append(event)) as camera:
        camera.read()
        with pytest.raises(EndOfStream):
            camera.read()
        assert until(lambda: bool(events))
    assert events == [
        ("camera note", "the camera did not close well (RuntimeError: rtsp://***@host is stuck)"),
    ]


def test_nothing_reads_on_after_close_at_the_moment_of_a_reconnection() -> None:
    gone, endless = Script([CameraError("gone")]), Script([8, 0.001] * 3000)
    gone.steps.insert(0, 8)
    armed, closers = threading.Event(), []

    def clock() -> float:
        if armed.is_set() and threading.current_thread().name == "edgecv-camera":
            # The supervisor is making the next worker: close the camera in just this moment.
            armed.clear()
            closer = threading.Thread(target=camera.close)
            closer.start()
            closers.append(closer)
            closer.join(0.2)
        return time.monotonic()

    camera = camera_of(gone, endless, clock=clock, on_event=lambda kind, _: kind == "camera lost" and armed.set())
    camera.open()
    assert until(lambda: bool(closers))
    closers[0].join()
    assert until(lambda: endless.closed == 1, within_s=1), "the source that was just made is let go"


def test_a_camera_that_hangs_at_each_attempt_is_lost_in_the_end() -> None:
    limited = Persistence(stall_s=0.02, open_s=0.5, first_s=0.001, longest_s=0.01, attempts=12)
    gate = threading.Event()
    with camera_of(Script([8] + ["hang"] * 50, released=gate), persistence=limited) as camera:
        camera.read()
        with pytest.raises(CameraError, match=r"is lost after 13 attempts: it hangs; no frame for"):
            camera.read(timeout_s=5)
        gate.set()
