"""The camera loop: frames in, results out, each stage on a thread of its own, every queue bounded.

::

    camera -> feed (choose a frame, pre-process) -> infer (engine) -> finish (decode, track, second stage) -> sinks

The stages overlap: while the engine works on one frame, the next is being pre-processed and the one
before decoded. With the policy ``latest`` a frame is chosen as late as possible, just in time for the
engine, so that results are as fresh as the model is fast.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgecv.core.frame import Frame
from edgecv.core.protocols import Pieces, Seen
from edgecv.core.results import Detections, Embedding
from edgecv.core.stream import FrameResult, Tracker
from edgecv.core.trace import Trace
from edgecv.errors import EdgecvError
from edgecv.families.gallery import Gallery
from edgecv.runtime.channel import Channel, Closed, Policy
from edgecv.runtime.profile import Profile
from edgecv.runtime.second import LooksRunner, SecondRunner
from edgecv.runtime.work import BUFFERS, Level, Work

MAX_FAILURES_IN_A_ROW = 30
_IDLE_S = 0.2
_SAFETY_S = 0.002


class StreamEnd(Exception):
    """The camera will give no more frames."""


class Feed(Protocol):
    """Where the loop takes its frames from."""

    def take(self, timeout_s: float) -> Frame | None:
        """The next frame by the policy; None where none came in time.

        Raises:
            StreamEnd: there are no more.
            EdgecvError: the camera is lost for good.
        """
        ...


@dataclass(frozen=True)
class Parts:
    """What a loop is made of. ``finished`` gets each result, on the loop's own thread: it must not block for long.

    ``levels`` are one or more artifacts of one family, from the best to the fastest.
    """

    feed: Feed
    levels: tuple[Level, ...]
    finished: Sequence[Callable[[FrameResult], None]]
    tracker: Tracker | None = None
    looks: LooksRunner | None = None
    second: SecondRunner | None = None
    gallery: Gallery | None = None
    policy: Policy = "every"
    max_age_ms: float | None = None
    deadline_ms: float | None = None
    max_frames: int | None = None
    clock: Callable[[], float] = time.monotonic


@dataclass
class _Pace:
    """How long the engine and the pre-processing take, smoothed; to choose a frame just in time."""

    infer_s: float = 0.0
    prepare_s: float = 0.0
    infer_since_s: float = 0.0
    slack: float = field(default=0.9)

    def start_after(self) -> float:
        """When the next frame should be chosen so that it is ready just before the engine is."""
        return self.infer_since_s + self.slack * self.infer_s - 1.5 * self.prepare_s - _SAFETY_S

    def saw_infer(self, spent_s: float) -> None:
        self.infer_s = spent_s if self.infer_s == 0 else 0.8 * self.infer_s + 0.2 * spent_s

    def saw_prepare(self, spent_s: float) -> None:
        self.prepare_s = spent_s if self.prepare_s == 0 else 0.8 * self.prepare_s + 0.2 * spent_s


class Loop:
    """Runs until the stream ends, `stop` is called, or something cannot be survived (then ``error`` is set)."""

    def __init__(self, parts: Parts, profile: Profile) -> None:
        self._parts, self.profile = parts, profile
        self._free: Channel[int] = Channel(BUFFERS)
        for slot in range(BUFFERS):
            self._free.put(slot)
        self._ready: Channel[Work] = Channel(1)
        self._done: Channel[Work] = Channel(2)
        self._stop = threading.Event()
        self._pace = _Pace()
        self._failures = 0
        self.level = 0
        self.level_frames: dict[str, int] = {}
        self.error: EdgecvError | None = None
        self.ended = ""
        stages = {"feed": self._feed, "infer": self._infer, "finish": self._finish}
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"edgecv-{name}", daemon=True)
            for name, work in stages.items()
        ]

    def start(self) -> None:
        """Warm the engines up, then start the threads."""
        for level in self._parts.levels:
            level.warm_up()
        self.profile.started_s = self._parts.clock()
        for thread in self._threads:
            thread.start()

    def stop(self, why: str = "stopped") -> None:
        """Take no more frames; those on their way are finished. Returns at once."""
        if not self.ended:
            self.ended = why
        self._stop.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False where a thread did not end within ``timeout_s``."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if until_s is None else max(0.0, until_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def running(self) -> bool:
        """Whether a stage is still at work."""
        return any(thread.is_alive() for thread in self._threads)

    def change_level(self, index: int, why: str) -> None:
        """Use another artifact of the ladder from the next frame on."""
        if index != self.level:
            names = [level.name for level in self._parts.levels]
            self.profile.event("level", f"{names[self.level]} -> {names[index]}: {why}")
            self.level = index

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Closed:
            pass
        except EdgecvError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the fence of a thread: nothing may end it in silence
            self._fail(EdgecvError(f"a defect in the loop ({type(error).__name__}: {error})"))
        finally:
            # The end of one stage ends the next one, after what is still on its way to it.
            {self._feed: self._ready.close, self._infer: self._done.close}.get(work, self._end_all)()

    def _fail(self, error: EdgecvError) -> None:
        if self.error is None:
            self.error = error
            self.profile.event("failed", str(error))
        self.stop("failed")
        self._free.close()
        self._ready.close()
        self._done.close()

    def _end_all(self) -> None:
        """The last stage is over: nobody takes anything any more, so those before must not wait for room."""
        self._stop.set()
        self._done.close(discard=True)
        self._ready.close(discard=True)
        self._free.close()

    def _feed(self) -> None:
        parts, taken = self._parts, 0
        while not self._stop.is_set() and (parts.max_frames is None or taken < parts.max_frames):
            slot = self._free.get(_IDLE_S)
            if slot is None:
                continue
            held = self._wait() if parts.policy == "latest" else None
            work = self._next(slot, held)
            if work is None:
                self._free.put(slot)
                continue
            taken += 1
            work.waiting_since_s = parts.clock()
            self._ready.put(work)
        self.ended = self.ended or f"{taken} frames, as asked"

    def _wait(self) -> Frame | None:
        """Until the engine is nearly free.

        A model for clips sees all frames that come meanwhile, or behind a slow engine things would seem to move faster
        than it learned. The newest of them is given back, not yet seen.
        """
        parts, newest = self._parts, None
        level = parts.levels[self.level]
        if level.window is None:
            self._stop.wait(max(0.0, self._pace.start_after() - parts.clock()))
            return None
        while not self._stop.is_set() and (left_s := self._pace.start_after() - parts.clock()) > 0:
            try:
                frame = parts.feed.take(min(left_s, _IDLE_S))
            except StreamEnd:
                break
            if frame is not None:
                level.keep(newest)
                newest = frame
        return newest

    def _next(self, slot: int, held: Frame | None) -> Work | None:
        """The next frame in its input buffer; None where there was none, or none that can be used.

        ``held`` was taken before, and is answered where no newer one has come.
        """
        parts = self._parts
        try:
            frame = parts.feed.take(_IDLE_S if held is None else 0.0)
        except StreamEnd:
            self.stop("the stream ended")
            frame = None
        if frame is None:
            frame = held
        elif held is not None:
            parts.levels[self.level].keep(held)
        if frame is None:
            return None
        started_s = parts.clock()
        if parts.max_age_ms is not None and (started_s - frame.captured_s) * 1000.0 > parts.max_age_ms:
            self.profile.counts.stale += 1
            return None
        level = parts.levels[self.level]
        work = Work(frame, Trace(clock=parts.clock), level, slot)
        work.trace.add("wait", min(frame.captured_s, started_s), started_s)
        try:
            with work.trace.stage("preprocess"):
                work.inputs, work.moment = level.fill(frame, slot)
        except EdgecvError as error:
            self._failed(error)
            return None
        self._pace.saw_prepare(work.trace.stages_ms["preprocess"] / 1000.0)
        return work

    def _infer(self) -> None:
        clock = self._parts.clock
        while (work := self._ready.get()) is not None:
            started_s = clock()
            work.trace.add("queue", work.waiting_since_s, started_s)
            self._pace.infer_since_s = started_s
            try:
                work.outputs = work.level.infer(work.inputs, work.moment)
            except EdgecvError as error:
                self._failed(error)
                continue
            finally:
                ended_s = clock()
                work.trace.add("infer", started_s, ended_s)
                self._pace.saw_infer(ended_s - started_s)
                self._free.put(work.slot)
            self._done.put(work)

    def _finish(self) -> None:
        parts = self._parts
        while (work := self._done.get()) is not None:
            subject, image = work.level.model.subject, work.frame.image
            try:
                with work.trace.stage("decode"):
                    picture = (image.shape[0], image.shape[1])
                    answers = subject.collector(picture)
                    for stored in work.outputs:
                        answers.add(subject.dequantize(stored))
                    result: Any = subject.decode(answers.outputs(), picture=picture)
                    if work.moment is not None and isinstance(result, Seen):
                        result = result.seen(work.moment.seconds)
                if parts.looks is not None and isinstance(result, Detections):
                    with work.trace.stage("reid"):
                        result = parts.looks.apply(image, result)
                if parts.tracker is not None and isinstance(result, Detections):
                    with work.trace.stage("track"):
                        result = parts.tracker.update(result, work.frame.time_s, image)
                if parts.second is not None and isinstance(result, Detections | Pieces):
                    with work.trace.stage("second"):
                        result = parts.second.apply(image, result)
                if parts.gallery is not None and isinstance(result, Embedding):
                    with work.trace.stage("search"):
                        result = parts.gallery.recognise(result)
            except EdgecvError as error:
                self._failed(error)
                continue
            self._failures = 0
            self._publish(work, result)

    def _publish(self, work: Work, result: Any) -> None:
        parts, name = self._parts, work.level.name
        self.level_frames[name] = self.level_frames.get(name, 0) + 1
        self.profile.frame(work.trace, work.frame.captured_s, deadline_ms=parts.deadline_ms)
        done = FrameResult(work.frame, result, work.trace, {"level": name})
        for take in parts.finished:
            take(done)

    def _failed(self, error: EdgecvError) -> None:
        """One frame is lost. A model that fails again and again is the end."""
        self.profile.counts.failed += 1
        self._failures += 1
        self.profile.event("frame failed", str(error))
        if self._failures >= MAX_FAILURES_IN_A_ROW:
            raise EdgecvError(f"{self._failures} frames in a row failed; the last one: {error}") from error
