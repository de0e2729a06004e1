"""A camera that is read while it comes and goes: three ways to read, reconnection, and every event counted.

A source is read in a thread of its own. When it fails, or gives nothing for ``stall_s`` (even while it hangs
inside a driver), that thread is left behind and a fresh source is opened, with growing pauses. What a
slow reader does not take in time is dropped and counted: a delay never grows.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

from edgecv.core.frame import Frame
from edgecv.core.stream import CameraCounts, Source, StreamFacts
from edgecv.errors import CameraError, CorruptFrameError, EdgecvError

_MAX_LEFT_BEHIND = 4
_MAX_CORRUPT_IN_A_ROW = 100
_CLOSE_WITHIN_S = 2.0


class EndOfStream(Exception):
    """The stream is over: a file was read to its end, or the camera was closed."""


@dataclass(frozen=True)
class Persistence:
    """How long a camera is waited for, and how it is sought again.

    No frame for ``stall_s`` seconds is a stall. The pause before attempt n is ``first_s * factor ** n``, at
    most ``longest_s``, shortened by up to a tenth so that many cameras do not come back in step. After
    ``attempts`` failures in a row (None: never) the camera is lost for good.
    """

    stall_s: float = 5.0
    open_s: float = 10.0
    first_s: float = 0.5
    factor: float = 2.0
    longest_s: float = 30.0
    attempts: int | None = None

    def pause_s(self, failures: int, draws: random.Random) -> float:
        """Seconds to wait after ``failures`` failures in a row (1 or more)."""
        planned = min(self.longest_s, self.first_s * self.factor ** min(failures - 1, 60))
        return planned * (1 - 0.1 * draws.random())


class _Worker:
    """One thread that reads one source. What it has to say stands in its fields, under the camera's lock."""

    def __init__(self, camera: "Camera") -> None:
        self.facts: StreamFacts | None = None
        self.error: EdgecvError | None = None
        self.ended = self.delivering = self.left = False
        self.frames = 0
        self.seen_s = camera._clock()
        self.thread = threading.Thread(target=self._run, args=(camera,), name="edgecv-camera-source", daemon=True)
        self.thread.start()

    def is_left(self) -> bool:
        """Whether the camera went on without this worker."""
        return self.left

    def _run(self, camera: "Camera") -> None:
        source = None
        try:
            source = camera._factory()
            facts = source.open()
            with camera._changed:
                self.facts, self.seen_s = facts, camera._clock()
                camera._changed.notify_all()
            self._read(camera, source, facts)
        except EdgecvError as error:
            self._say(camera, error)
        except Exception as error:  # noqa: BLE001 - drivers raise what they like; the supervisor must hear of it
            self._say(camera, CameraError(f"the camera failed ({type(error).__name__}: {error})"))
        finally:
            if source is not None:
                source.close()

    def _read(self, camera: "Camera", source: Source, facts: StreamFacts) -> None:
        corrupt = 0
        while not self.left:
            try:
                frame = source.read()
            except CorruptFrameError as error:
                corrupt += 1
                with camera._changed:
                    camera.counts.corrupt += 1
                    self.seen_s = camera._clock()
                if corrupt >= _MAX_CORRUPT_IN_A_ROW and facts.live:
                    raise CameraError(f"{corrupt} pictures in a row cannot be decoded; the last: {error}") from error
                continue
            corrupt = 0
            if frame is None:
                with camera._changed:
                    self.ended = True
                    camera._changed.notify_all()
                return
            camera._deliver(self, frame, live=facts.live)

    def _say(self, camera: "Camera", error: EdgecvError) -> None:
        with camera._changed:
            self.error = error
            camera._changed.notify_all()


class Camera:
    """Frames of the sources that ``factory`` makes, one after the other as they fail.

    Read it in one of three ways: `read` (every frame in order), `read_latest` (the newest one),
    `async_read` (None where none came in time). ``queue`` frames may wait; of a live camera the
    oldest is dropped for a newer one, a file waits for its reader. ``counts`` tells what happened.
    """

    def __init__(
        self,
        factory: Callable[[], Source],
        *,
        persistence: Persistence | None = None,
        queue: int = 4,
        clock: Callable[[], float] = time.monotonic,
        on_event: Callable[[str, str], None] | None = None,
    ) -> None:
        self._factory, self._clock, self._on_event = factory, clock, on_event
        self._persistence = persistence or Persistence()
        self._changed = threading.Condition()
        self._frames: deque[Frame] = deque()
        self._capacity = queue
        self._worker: _Worker | None = None
        self._left_behind: list[_Worker] = []
        self._supervisor: threading.Thread | None = None
        self._draws = random.Random(0)
        self._closing = self._ended = False
        self._lost: EdgecvError | None = None
        self._index = 0
        self._last_s: float | None = None
        self._shape: tuple[int, ...] | None = None
        self.counts = CameraCounts()
        self.facts = StreamFacts("", None, None, live=False)

    def open(self) -> StreamFacts:
        """Connect for the first time; from then on the camera looks after itself.

        Raises:
            EdgecvError: the source cannot be opened at all, or not within ``open_s`` seconds.
        """
        worker = self._worker = _Worker(self)
        with self._changed:
            self._changed.wait_for(
                lambda: worker.facts is not None or worker.error is not None, self._persistence.open_s
            )
            if worker.facts is None:
                worker.left = self._ended = True
                raise worker.error or CameraError(
                    f"the camera did not open within {self._persistence.open_s:g} s; is it connected and switched on?"
                )
            self.facts = worker.facts
        self._supervisor = threading.Thread(target=self._supervise, name="edgecv-camera", daemon=True)
        self._supervisor.start()
        return self.facts

    def read(self, *, timeout_s: float = 10.0) -> Frame:
        """The next frame in order.

        Raises:
            EndOfStream: there are no more.
            CameraError: none came within ``timeout_s``, or the camera is lost for good.
        """
        frame = self.async_read(timeout_s)
        if frame is None:
            raise CameraError(f"{self.facts.name} gave no frame within {timeout_s:g} s")
        return frame

    def async_read(self, timeout_s: float) -> Frame | None:
        """The next frame in order, or None where none came within ``timeout_s``.

        Raises:
            EndOfStream: there are no more.
            CameraError: the camera is lost for good.
        """
        with self._changed:
            self._changed.wait_for(self._something, timeout_s)
            if self._frames:
                frame = self._frames.popleft()
                self.counts.frames += 1
                self._changed.notify_all()
                return frame
            self._raise_if_over()
            return None

    def read_latest(self, *, max_age_s: float, timeout_s: float) -> Frame | None:
        """The newest frame that was not read yet and is at most ``max_age_s`` old; older ones are dropped.

        None where none came within ``timeout_s``.

        Raises:
            EndOfStream: there are no more.
            CameraError: the camera is lost for good.
        """
        until_s = self._clock() + timeout_s
        with self._changed:
            while True:
                self._changed.wait_for(self._something, max(0.0, until_s - self._clock()))
                if not self._frames:
                    self._raise_if_over()
                    return None
                frame = self._frames.pop()
                self.counts.dropped += len(self._frames)
                self._frames.clear()
                self._changed.notify_all()
                if self._clock() - frame.captured_s <= max_age_s:
                    self.counts.frames += 1
                    return frame
                self.counts.dropped += 1

    def close(self) -> None:
        """Stop reading and let the camera go; returns within two seconds whatever the camera does."""
        with self._changed:
            self._closing = self._ended = True
            if self._worker is not None:
                self._worker.left = True
            self._frames.clear()
            self._changed.notify_all()
        until_s = time.monotonic() + _CLOSE_WITHIN_S
        for thread in (self._supervisor, self._worker.thread if self._worker else None):
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(0.0, until_s - time.monotonic()))

    def __enter__(self) -> "Camera":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _over(self) -> bool:
        return self._closing

    def _something(self) -> bool:
        return bool(self._frames) or self._ended or self._lost is not None

    def _raise_if_over(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._ended:
            raise EndOfStream

    def _deliver(self, worker: _Worker, frame: Frame, *, live: bool) -> None:
        """Number a frame and put it where readers find it; called by the worker."""
        with self._changed:
            worker.seen_s = self._clock()
            if worker.left:
                return
            worker.frames += 1
            frame = self._numbered(frame)
            if live:
                while len(self._frames) >= self._capacity:
                    self._frames.popleft()
                    self.counts.dropped += 1
            else:
                worker.delivering = True
                self._changed.wait_for(lambda: worker.left or len(self._frames) < self._capacity)
                worker.delivering, worker.seen_s = False, self._clock()
                if worker.is_left():
                    return
            self._frames.append(frame)
            self._changed.notify_all()

    def _numbered(self, frame: Frame) -> Frame:
        """Count on over reconnections, and never let the time go back."""
        if self._shape is not None and frame.image.shape[:2] != self._shape:
            self.counts.size_changes += 1
            self._event("size", f"{self._shape[1]}x{self._shape[0]} -> {frame.image.shape[1]}x{frame.image.shape[0]}")
        self._shape = frame.image.shape[:2]
        captured_s = frame.captured_s
        if self._last_s is not None and captured_s < self._last_s:
            self.counts.clock_steps += 1
            captured_s = self._last_s
        self._last_s = captured_s
        self._index += 1
        if frame.index == self._index - 1 and captured_s == frame.captured_s:
            return frame
        return replace(frame, index=self._index - 1, captured_s=captured_s)

    def _supervise(self) -> None:
        failures, first = 0, True
        while (worker := self._worker) is not None:
            why = self._watch(worker, first=first)
            first = False
            if self._over():
                break
            if why is None:
                with self._changed:
                    self._ended = True
                    self._changed.notify_all()
                break
            failures = 1 if worker.frames else failures + 1
            self._leave(worker, why)
            if self._persistence.attempts is not None and failures > self._persistence.attempts:
                with self._changed:
                    self._lost = CameraError(f"{self.facts.name} is lost after {failures} attempts: {why}")
                    self._changed.notify_all()
                break
            with self._changed:
                self._changed.wait_for(self._over, self._persistence.pause_s(failures, self._draws))
                self._left_behind = [item for item in self._left_behind if item.thread.is_alive()]
                # Threads that hang in a driver cannot be ended; a new one only while few do.
                while len(self._left_behind) >= _MAX_LEFT_BEHIND and not self._over():
                    self._changed.wait(0.5)
                    self._left_behind = [item for item in self._left_behind if item.thread.is_alive()]
                if self._over():
                    break
            self._worker = _Worker(self)

    def _watch(self, worker: _Worker, *, first: bool) -> str | None:
        """Wait until something is wrong with the worker: why; None for the end of a file."""
        told = first
        while True:
            with self._changed:
                if self._over():
                    return ""
                if worker.facts is not None and not told:
                    told = True
                    self.counts.reconnects += 1
                    self._event("reconnected", worker.facts.name)
                if worker.error is not None:
                    if worker.facts is None:
                        self.counts.failed_connects += 1
                    return str(worker.error)
                if worker.ended:
                    return "the stream ended" if worker.facts is not None and worker.facts.live else None
                limit_s = self._persistence.stall_s if worker.facts is not None else self._persistence.open_s
                idle_s = self._clock() - worker.seen_s
                if worker.delivering:
                    idle_s = 0.0
                if idle_s >= limit_s:
                    if worker.facts is None:
                        self.counts.failed_connects += 1
                    else:
                        self.counts.stalls += 1
                    return f"no {'frame' if worker.facts else 'answer'} for {idle_s:.1f} s"
                self._changed.wait(min(0.25, max(0.005, limit_s - idle_s)))

    def _leave(self, worker: _Worker, why: str) -> None:
        with self._changed:
            worker.left = True
            self._left_behind.append(worker)
            self._changed.notify_all()
        self._event("lost", why)

    def _event(self, kind: str, text: str) -> None:
        if self._on_event is not None:
            self._on_event(f"camera {kind}", text)
