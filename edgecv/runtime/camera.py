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
from dataclasses import replace
from types import TracebackType

from edgecv.core.frame import Frame
from edgecv.core.stream import CameraCounts, Source, StreamFacts
from edgecv.errors import CameraError, CorruptFrameError, EdgecvError
from edgecv.runtime.persistence import Persistence
from edgecv.runtime.sources.privacy import hidden
from edgecv.runtime.steady import SteadyTime

__all__ = ["Camera", "EndOfStream", "Persistence"]

_MAX_LEFT_BEHIND = 4
_MAX_CORRUPT_IN_A_ROW = 100
_CLOSE_WITHIN_S = 2.0
_AHEAD_S = 0.5
_SLOWEST_GAPS = 2
_USUAL_FPS = 30.0


class EndOfStream(Exception):
    """The stream is over: a file was read to its end, or the camera was closed."""


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
            for note in getattr(source, "notes", ()):
                camera._event("note", note)
            with camera._changed:
                self.facts, self.seen_s = facts, camera._clock()
                camera._changed.notify_all()
            self._read(camera, source, facts)
        except EdgecvError as error:
            self._say(camera, error)
        except Exception as error:  # noqa: BLE001 - drivers raise what they like; the supervisor must hear of it
            self._say(camera, CameraError(f"the camera failed ({type(error).__name__}: {hidden(str(error))})"))
        finally:
            try:
                if source is not None:
                    source.close()
            except Exception as error:  # noqa: BLE001 - as above; a camera that is let go can do no more harm
                camera._event("note", f"the camera did not close well ({type(error).__name__}: {hidden(str(error))})")
            camera._tell()

    def _read(self, camera: "Camera", source: Source, facts: StreamFacts) -> None:
        corrupt = 0
        lasting = facts.live and facts.frames is None  # a file ends by itself, however many of its frames are bad
        while not self.left:
            try:
                frame = source.read()
            except CorruptFrameError as error:
                corrupt += 1
                with camera._changed:
                    if self.is_left():
                        return
                    camera.counts.corrupt += 1
                    if not lasting:
                        self.seen_s = camera._clock()
                    if corrupt == 1:
                        camera._event("corrupt", str(error))
                camera._tell()
                if corrupt >= _MAX_CORRUPT_IN_A_ROW and lasting:
                    raise CameraError(f"{corrupt} pictures in a row cannot be decoded; the last: {error}") from error
                continue
            corrupt = 0
            if frame is None:
                with camera._changed:
                    self.ended = True
                    camera._changed.notify_all()
                return
            camera._deliver(self, frame, live=facts.live)
            camera._tell()

    def _say(self, camera: "Camera", error: EdgecvError) -> None:
        with camera._changed:
            self.error = error
            camera._changed.notify_all()


class Camera:
    """Frames of the sources that ``factory`` makes, one after the other as they fail.

    Read it in one of three ways: `read` (every frame in order), `read_latest` (the newest one),
    `async_read` (None where none came in time). ``queue`` frames may wait; of a live camera the
    oldest is dropped for a newer one, a file waits for its reader. ``counts`` tells what happened; ``on_event``
    gets a kind and a text for each event, on one of the camera's threads. ``clock`` is the one that frames are
    stamped with.
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
        self._captured, self._media = SteadyTime(), SteadyTime()
        self._events: deque[tuple[str, str]] = deque()
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
            frame = self._numbered(frame, worker)
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

    def _numbered(self, frame: Frame, worker: _Worker) -> Frame:
        """Count on over reconnections, and never let the time go back."""
        if self._shape is not None and frame.image.shape[:2] != self._shape:
            self.counts.size_changes += 1
            self._event("size", f"{self._shape[1]}x{self._shape[0]} -> {frame.image.shape[1]}x{frame.image.shape[0]}")
        self._shape = frame.image.shape[:2]
        new = worker.frames == 1
        if new:
            self._captured.restart()
            self._media.restart()
        now_s = self._clock()
        captured_s, stepped = self._captured.take(frame.captured_s, resume_s=now_s, latest_s=now_s + _AHEAD_S)
        media_s, media_stepped = frame.media_s, False
        if media_s is not None:
            fps = (worker.facts.fps if worker.facts is not None else None) or _USUAL_FPS
            media_s, media_stepped = self._media.take(media_s, resume_s=self._media.after(1 / fps))
        self.counts.clock_steps += stepped or (media_stepped and not new)
        self._index += 1
        if (frame.index, frame.captured_s, frame.media_s) == (self._index - 1, captured_s, media_s):
            return frame
        return replace(frame, index=self._index - 1, captured_s=captured_s, media_s=media_s)

    def _supervise(self) -> None:
        failures, first = 0, True
        while (worker := self._worker) is not None:
            why = self._watch(worker, first=first)
            first = False
            self._tell()
            if self._over():
                break
            if why is None:
                with self._changed:
                    self._ended = True
                    self._changed.notify_all()
                break
            failures = 1 if worker.frames else failures + 1
            self._leave(worker, why)
            if not self._may_try(failures):
                self._lose(f"{self.facts.name} is lost after {failures} attempts: {why}")
                break
            with self._changed:
                self._changed.wait_for(self._over, self._persistence.pause_s(failures, self._draws))
                # Threads that hang in a driver cannot be ended; a new one only while few do.
                while self._hanging() >= _MAX_LEFT_BEHIND and not self._over() and self._may_try(failures):
                    failures += 1
                    self._changed.wait_for(self._over, self._persistence.pause_s(failures, self._draws))
                if self._over():
                    break
                if not self._may_try(failures):
                    self._lose(f"{self.facts.name} is lost after {failures} attempts: it hangs; {why}")
                    break
                self._worker = _Worker(self)  # under the lock: `close` sees either the old one or this one

    def _watch(self, worker: _Worker, *, first: bool) -> str | None:
        """Wait until something is wrong with the worker: why; None for the end of the stream."""
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
                    return None
                limit_s = self._limit_s(worker.facts)
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

    def _limit_s(self, facts: StreamFacts | None) -> float:
        if facts is None:
            return self._persistence.open_s
        return max(self._persistence.stall_s, _SLOWEST_GAPS / facts.fps if facts.fps else 0.0)

    def _may_try(self, failures: int) -> bool:
        return self._persistence.attempts is None or failures <= self._persistence.attempts

    def _lose(self, why: str) -> None:
        with self._changed:
            self._lost = CameraError(why)
            self._changed.notify_all()

    def _hanging(self) -> int:
        self._left_behind = [item for item in self._left_behind if item.thread.is_alive()]
        return len(self._left_behind)

    def _leave(self, worker: _Worker, why: str) -> None:
        with self._changed:
            worker.left = True
            self._left_behind.append(worker)
            self._event("lost", why)
            self._changed.notify_all()
        self._tell()

    def _event(self, kind: str, text: str) -> None:
        if self._on_event is not None:
            self._events.append((f"camera {kind}", text))

    def _tell(self) -> None:
        """Report what happened; never under the lock, for the one who is told may take long."""
        while self._on_event is not None and self._events:
            try:
                kind, text = self._events.popleft()
            except IndexError:  # another thread was quicker
                return
            self._on_event(kind, text)
