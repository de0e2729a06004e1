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
    released: threading.Event = field(default_factory=threading.Event)
    index: int = 0
    closed: int = 0

    def open(self) -> StreamFacts:
        if self.steps and isinstance(self.steps[0], CameraError):
            raise self.steps[0]
        return StreamFacts("script", None, 100.0, self.live)

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
            return Frame(np.zeros((size, size, 3), np.uint8), stamp_s, self.index - 1, "script")

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
    assert len(scripts) <= 6, "at most four threads are left behind at a time"
    started_s = time.monotonic()
    camera.close()
    assert time.monotonic() - started_s < 3
    for script in scripts:
        script.released.set()


def test_corrupt_frames_and_other_sizes_and_times_are_counted() -> None:
    steps: list[object] = [8, CorruptFrameError("bad"), 8, 16, CorruptFrameError("bad"), 16]
    now_s = time.monotonic()
    script = Script(steps, live=False, stamps=[now_s, now_s + 1, now_s + 0.5, now_s + 2])
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
