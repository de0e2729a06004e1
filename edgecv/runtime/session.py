"""A pipeline in words becomes a running loop: camera, models, tracker, sinks, live page, heat, report."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from edgecv.core.stream import FrameResult
from edgecv.measure.host import Sampler
from edgecv.runtime.camera import Camera
from edgecv.runtime.channel import Channel
from edgecv.runtime.governor import Governor
from edgecv.runtime.live import LiveServer
from edgecv.runtime.loop import Loop
from edgecv.runtime.profile import Profile
from edgecv.runtime.second import SecondRunner
from edgecv.runtime.sinks.runner import SinkRunner
from edgecv.runtime.spec import PipelineSpec
from edgecv.runtime.timeline import Timeline
from edgecv.runtime.work import Level

_WATCH_EVERY_S = 1.0
_RESULTS_WAITING = 4
_STOP_WITHIN_S = 5.0


@dataclass
class Session:
    """One camera loop with all that hangs on it. `open_session` makes it; use it in a ``with`` statement.

    Iterating starts the loop and gives each `FrameResult`; leaving the iteration stops it.
    """

    spec: PipelineSpec
    camera: Camera
    levels: tuple[Level, ...]
    loop: Loop
    profile: Profile
    sampler: Sampler
    sinks: list[SinkRunner]
    second: SecondRunner | None = None
    live: LiveServer | None = None
    governor: Governor | None = None
    timeline: Timeline | None = None
    notes: list[str] = field(default_factory=list)
    _results: Channel[FrameResult] | None = None
    _closing: threading.Event = field(default_factory=threading.Event)
    _stopping_since_s: float | None = None
    _closed: bool = False
