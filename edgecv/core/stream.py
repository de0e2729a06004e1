"""The seams of the camera loop: what a camera, a tracker and a sink must offer, and what travels between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from edgecv.core.frame import Frame
from edgecv.core.results import Detections
from edgecv.core.tensor import Array
from edgecv.core.trace import Trace


@dataclass(frozen=True)
class StreamFacts:
    """What a camera says of itself before the first frame. ``size`` is (height, width) in pixels.

    ``live`` says that frames go by whether they are read or not (a camera); False for what waits
    (a file). ``fps`` is the nominal rate, ``frames`` the known number of frames; None where unknown.
    """

    name: str
    size: tuple[int, int] | None
    fps: float | None
    live: bool
    frames: int | None = None


@dataclass
class CameraCounts:
    """What happened to a camera since it was opened; every event is counted, none is silent.

    ``frames`` were delivered, ``dropped`` were taken but never delivered (replaced by a later one or
    too old), ``corrupt`` could not be decoded, ``stalls`` are times without a frame beyond the limit,
    ``reconnects`` succeeded, ``failed_connects`` did not, ``size_changes`` are changes of resolution,
    ``clock_steps`` are timestamps that went back or jumped.
    """

    frames: int = 0
    dropped: int = 0
    corrupt: int = 0
    stalls: int = 0
    reconnects: int = 0
    failed_connects: int = 0
    size_changes: int = 0
    clock_steps: int = 0


class Source(Protocol):
    """One way to get pictures: opened, read picture by picture in one thread, closed. It never reconnects."""

    def open(self) -> StreamFacts:
        """Connect; may be called again after `close`.

        Raises:
            UsageError: the address or an option cannot be used.
            CameraError: there is no such camera now, or it does not answer.
        """
        ...

    def read(self) -> Frame | None:
        """The next frame with the time it was captured; None at the end of the stream.

        Raises:
            CameraError: the camera is gone.
            CorruptFrameError: this one picture cannot be decoded; the next may be whole.
        """
        ...

    def close(self) -> None:
        """Let the camera go; calling it twice does no harm."""
        ...


class Tracker(Protocol):
    """Gives objects the same id from frame to frame. One instance follows one stream, in one thread."""

    def update(self, detections: Detections, captured_s: float, image: Array | None = None) -> Detections:
        """The tracked objects of this frame, with ``track_ids``; at most those of ``detections``.

        Their boxes may be the tracker's own, smoothed ones.

        ``captured_s`` is the frame's time (it never goes back); ``image`` (uint8 BGR or gray) is used for
        camera motion and appearance where the tracker has them.
        """
        ...

    def reset(self) -> None:
        """Forget all tracks and start the ids at 1 again."""
        ...


@dataclass(frozen=True)
class FrameResult:
    """One frame with what was found in it and how long each stage took.

    ``result`` is the family's result type: `Detections`, `Classification`, `Poses`, ...
    """

    frame: Frame
    result: Any
    trace: Trace
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: frame index, capture time, the result's own values, stage times in ms."""
        return {
            "frame": self.frame.index,
            "captured_s": round(self.frame.captured_s, 6),
            "source": self.frame.source,
            **self.result.to_dict(),
            "stages_ms": {name: round(value, 3) for name, value in self.trace.stages_ms.items()},
        }


class Sink(Protocol):
    """Takes results: a video file, a table, a message broker. Called from one thread of its own."""

    def open(self, facts: StreamFacts) -> None:
        """Get ready before the first result.

        Raises:
            UsageError: the address or an option cannot be used.
            ToolchainError: something that the sink needs is missing.
        """
        ...

    def write(self, item: FrameResult) -> None:
        """Take one result. May block; may raise OSError or EdgecvError, which is counted and reported."""
        ...

    def close(self) -> None:
        """Finish the file or the connection; calling it twice does no harm."""
        ...


@dataclass(frozen=True)
class StageStatus:
    """Times of one stage over the last frames, in milliseconds; a percentile that too few frames support is None."""

    name: str
    p50_ms: float
    p95_ms: float | None
    max_ms: float


@dataclass(frozen=True)
class SinkStatus:
    """What became of the results given to one sink. ``error`` is its last failure, "" while there was none."""

    name: str
    written: int
    dropped: int
    failed: int
    alive: bool
    error: str = ""


@dataclass(frozen=True)
class LoopStatus:
    """A running loop as it is now: what the live page, /metrics and /health show.

    ``age_p50_ms`` is from capture to the end of the pipeline. ``level`` names the governor's artifact,
    "" without a governor. ``flags`` say what holds the machine back (throttled, under-voltage). ``power_w`` is in
    watts by rail; ``total`` is the whole, other rails are parts of it.
    """

    state: str  # "starting", "running", "stopped", "failed"
    uptime_s: float
    fps: float
    frames: int
    dropped: int
    deadline_misses: int
    age_p50_ms: float | None
    age_p95_ms: float | None
    stages: tuple[StageStatus, ...] = ()
    camera: CameraCounts = field(default_factory=CameraCounts)
    sinks: tuple[SinkStatus, ...] = ()
    temperature_c: dict[str, float] = field(default_factory=dict)
    power_w: dict[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    level: str = ""
    error: str = ""
