"""A pipeline in words becomes a running loop: camera, models, tracker, sinks, live page, heat, report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

import cv2

import edgecv
from edgecv import backends, track
from edgecv.core.figures import LoopFigures
from edgecv.core.kinds import FAMILY_KINDS
from edgecv.core.stream import FrameResult, LoopStatus, Sink, Source, StreamFacts, Tracker
from edgecv.core.target import ThermalZone
from edgecv.errors import EdgecvError, UsageError
from edgecv.measure.host import machine_facts, peak_rss_mb
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.runtime.camera import Camera, Persistence
from edgecv.runtime.channel import Channel, Closed, Policy
from edgecv.runtime.feed import CameraFeed
from edgecv.runtime.gallery import open_gallery
from edgecv.runtime.governor import Governor
from edgecv.runtime.live import LiveServer
from edgecv.runtime.loop import Loop, Parts
from edgecv.runtime.profile import Profile
from edgecv.runtime.second import LooksRunner, SecondRunner, open_looks, open_second
from edgecv.runtime.sinks import Callback
from edgecv.runtime.sinks import parse as parse_sink
from edgecv.runtime.sinks.runner import SinkRunner
from edgecv.runtime.sources import parse as parse_source
from edgecv.runtime.spec import PipelineSpec
from edgecv.runtime.timeline import Timeline
from edgecv.runtime.vitals import Vitals, open_vitals
from edgecv.runtime.work import Level, load_levels

_WATCH_EVERY_S = 1.0
_RESULTS_WAITING = 4
_STOP_WITHIN_S = 5.0


@dataclass
class Session:
    """One camera loop with all that hangs on it. `open_session` makes it; use it in a ``with`` statement.

    Iterating starts the loop and gives each `FrameResult`; leaving the iteration stops it.
    """

    spec: PipelineSpec
    facts: StreamFacts
    policy: Policy
    camera: Camera
    levels: tuple[Level, ...]
    loop: Loop
    profile: Profile
    vitals: Vitals
    sinks: list[SinkRunner]
    second: SecondRunner | None = None
    looks: LooksRunner | None = None
    live: LiveServer | None = None
    governor: Governor | None = None
    timeline: Timeline | None = None
    notes: list[str] = field(default_factory=list)
    _results: Channel[FrameResult] | None = None
    _closing: threading.Event = field(default_factory=threading.Event)
    _watcher: threading.Thread | None = None
    _stopped_s: float | None = None
    _closed: bool = False
    _opencv_threads: int | None = None

    def start(self) -> None:
        """Warm the engines up and let the first frame in. Until `close`, OpenCV computes on one thread in this process.

        Raises:
            EdgecvError: an engine failed on its first run.
        """
        self.vitals.start()
        # The stages run side by side; more threads inside one of them only take cores from the engine.
        self._opencv_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        self._watcher = threading.Thread(target=self._watch, name="edgecv-watch", daemon=True)
        self._watcher.start()
        self.loop.start()

    def stop(self, why: str = "stopped") -> None:
        """Take no more frames; what is on its way is finished. Returns at once."""
        self._stopped_s = time.monotonic() if self._stopped_s is None else self._stopped_s
        self.loop.stop(why)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the loop; False where it still runs after ``timeout_s``."""
        return self.loop.wait(timeout_s)

    @property
    def running(self) -> bool:
        """Whether frames are still on their way."""
        return self.loop.running

    @property
    def stopping_for_s(self) -> float:
        """How long ago the loop was told to stop; 0 before."""
        return 0.0 if self._stopped_s is None else time.monotonic() - self._stopped_s

    @property
    def error(self) -> EdgecvError | None:
        """What ended the loop, where it could not be survived."""
        return self.loop.error

    def __iter__(self) -> Iterator[FrameResult]:
        results = self._results = Channel(_RESULTS_WAITING, self.policy)
        try:
            self.start()
            threading.Thread(target=self._close_results, daemon=True, name="edgecv-results").start()
            while True:
                try:
                    item = results.get()
                except Closed:
                    break
                if item is not None:
                    yield item
            if self.error is not None:
                raise self.error
        finally:
            results.close(discard=True)
            self.stop("the reader left")
            self.close()

    def take(self, item: FrameResult) -> None:
        """Hand a finished frame to whoever wants it; called by the loop."""
        for sink in self.sinks:
            sink.offer(item)
        if self.timeline is not None:
            self.timeline.add(item)
        if self._results is not None:
            self._results.put(item)

    def status(self) -> LoopStatus:
        """The loop as it is now."""
        profile, counts = self.profile, self.profile.counts
        age = profile.age.status("age")
        real = self._real_time
        state = "failed" if self.error else "running" if self.running else "stopped" if self._stopped() else "starting"
        return LoopStatus(
            state=state,
            uptime_s=profile.clock() - profile.started_s,
            fps=profile.fps(),
            frames=counts.frames,
            dropped=self.camera.counts.dropped + counts.stale,
            deadline_misses=counts.misses,
            age_p50_ms=age.p50_ms if age is not None and real else None,
            age_p95_ms=age.p95_ms if age is not None and real else None,
            stages=profile.stage_status(),
            camera=self.camera.counts,
            sinks=tuple(sink.status for sink in self.sinks),
            temperature_c=dict(self.vitals.temperature_c),
            power_w=dict(self.vitals.power_w),
            flags=self.vitals.flags,
            level=self.levels[self.loop.level].name if len(self.levels) > 1 else "",
            error=str(self.error) if self.error is not None else "",
        )

    def figures(self) -> LoopFigures:
        """The whole run so far."""
        profile, counts = self.profile, self.profile.counts
        return LoopFigures(
            camera_name=self.facts.name,
            frames=counts.frames,
            seconds=round((profile.last_s or profile.started_s) - profile.started_s, 3),
            fps=round(profile.mean_fps(), 3),
            policy=self.policy,
            age=profile.age.percentiles() if self._real_time else None,
            end_to_end=profile.whole.percentiles(),
            stages=profile.stage_figures(),
            camera=asdict(self.camera.counts),
            sinks=tuple(sink.figures for sink in self.sinks),
            failed=counts.failed,
            stale=counts.stale,
            deadline_ms=self.spec.deadline_ms,
            deadline_misses=counts.misses if self.spec.deadline_ms is not None else None,
            levels=dict(self.loop.level_frames),
            temperature_c=dict(self.vitals.sampler.max_temperature_c),
            peak_rss_mb=peak_rss_mb(),
            power=self.vitals.power_figures(frames=counts.frames, fps=profile.mean_fps()),
            events=tuple(profile.events),
            events_seen=profile.events_seen,
            ended=self.loop.ended or "the loop did not end",
            invalid=self.vitals.sampler.invalid,
        )

    def report(self) -> Report:
        """The run as a report, in the schema of all reports."""
        figures = self.figures()
        models = [*self.levels, *(stage.level for stage in (self.looks, self.second) if stage is not None)]
        artifacts = tuple(_artifact(level) for level in models)
        engines = {name: backends.get(name).version() for name in sorted({item.backend for item in artifacts})}
        return Report(
            name=self.facts.name,
            edgecv_version=edgecv.__version__,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            outcome="fail" if self.error is not None else "inconclusive" if figures.invalid else "pass",
            machine=machine_facts(engines),
            artifacts=artifacts,
            steps=(),
            seconds=figures.seconds,
            notes=(*self.notes, *self.vitals.sampler.notes),
            loop=figures,
        )

    def close(self) -> None:
        """Stop, let the sinks finish and give everything back; bounded in time, calling it twice does no harm."""
        if self._closed:
            return
        self._closed = True
        self.stop("closed")
        if not self.loop.wait(_STOP_WITHIN_S) and self._watcher is not None:
            self.notes.append(f"a stage did not end within {_STOP_WITHIN_S:g} s and was left behind")
        self._closing.set()
        self.camera.close()
        for sink in self.sinks:
            sink.close()
        if self.timeline is not None and self.spec.timeline:
            self.timeline.write(Path(self.spec.timeline))
        if self._opencv_threads is not None:
            cv2.setNumThreads(self._opencv_threads)
        if self.loop.running:
            return  # an engine that hangs must not be freed under its own feet
        for level in self.levels:
            level.model.close()
        for stage in (self.looks, self.second):
            if stage is not None:
                stage.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _real_time(self) -> bool:
        """Whether frames carry the time they were taken at: not those of a file at full speed."""
        return self.facts.live

    def _stopped(self) -> bool:
        return bool(self.loop.ended)

    def _close_results(self) -> None:
        self.loop.wait()
        if self._results is not None:
            self._results.close()

    def _watch(self) -> None:
        """Look at the machine once a second; change the model where it gets too hot or too slow."""
        spec = self.spec
        while not self._closing.wait(_WATCH_EVERY_S):
            readings = self.vitals.look(self.profile.event)
            if self.governor is not None:
                ages = self.profile.whole.status("whole")
                latency_ms = None if ages is None else ages.p50_ms
                decision = self.governor.update(
                    time.monotonic(), readings.temperature_c, latency_ms=latency_ms, flags=readings.flags
                )
                self.loop.change_level(decision.level, decision.why)
            if spec.seconds is not None and self.profile.clock() - self.profile.started_s >= spec.seconds:
                self.stop(f"{spec.seconds:g} s, as asked")


def open_session(
    spec: PipelineSpec,
    *,
    source: Callable[[], Source] | None = None,
    sinks: Sequence[tuple[str, Sink, Policy]] = (),
    on_result: Callable[[FrameResult], object] | None = None,
    persistence: Persistence | None = None,
    vitals: Vitals | None = None,
) -> Session:
    """Load the models, open the camera and the sinks; nothing runs before `Session.start`.

    ``source`` makes the camera's source instead of ``spec.camera``; ``on_result`` is called with each result on a
    thread of its own. ``vitals`` looks at the board (default: at this one).

    Raises:
        EdgecvError: something of it cannot be used; what was opened before is closed again.
    """
    spec.check()
    profile = Profile()
    with ExitStack() as opened:
        levels, second, looks = _open_networks(spec, opened)
        gallery = open_gallery(spec.gallery, levels[0].model) if spec.gallery else None
        make = source or (lambda: parse_source(spec.camera, spec.camera_options))
        camera = Camera(make, persistence=persistence, on_event=profile.event)
        facts = camera.open()
        opened.callback(camera.close)
        policy = spec.policy_for(live=facts.live)
        zones = tuple(ThermalZone(**zone) for zone in levels[0].model.manifest.thermal)
        finished: list[Callable[[FrameResult], None]] = []
        parts = Parts(
            feed=CameraFeed(camera, policy),
            levels=levels,
            finished=finished,
            tracker=_tracker(spec, facts.fps),
            looks=looks,
            second=second,
            gallery=gallery,
            policy=policy,
            max_age_ms=spec.max_age_ms if facts.live else None,
            deadline_ms=spec.deadline_ms,
            max_frames=spec.frames,
        )
        loop, board = Loop(parts, profile), vitals or open_vitals(zones)
        session = Session(spec, facts, policy, camera, levels, loop, profile, board, sinks=[])
        session.second, session.looks = second, looks
        session.governor = _governor(spec, levels, zones)
        session.timeline = Timeline() if spec.timeline else None
        finished.append(session.take)
        _open_sinks(session, [*sinks, *([("callback", Callback(on_result), policy)] if on_result else [])], opened)
        opened.pop_all()  # the session closes them
    return session


def _open_networks(
    spec: PipelineSpec, opened: ExitStack
) -> tuple[tuple[Level, ...], SecondRunner | None, LooksRunner | None]:
    """The first networks, the second one and the one that tells looks apart; ``opened`` closes them."""
    levels = load_levels(spec.detect or spec.model, threads=spec.threads, score=spec.score)
    for level in levels:
        opened.callback(level.model.close)
    _check_first(spec, levels[0])
    second = looks = None
    if spec.second is not None:
        second = open_second(spec.second, levels[0].model.manifest.family.labels, threads=spec.threads)
        opened.callback(second.close)
    if spec.reid:
        looks = open_looks(spec.reid, threads=spec.threads)
        opened.callback(looks.close)
    return levels, second, looks


def _check_first(spec: PipelineSpec, first: Level) -> None:
    """Whether what comes behind the first network can work with what it gives."""
    finders = [kind for kind, facts in FAMILY_KINDS.items() if facts.objects or facts.pieces]
    if spec.detect and first.kind not in finders:
        allowed = " or ".join(finders)
        raise UsageError(f"{spec.detect[0]} is a model for {first.kind}; detect needs one for {allowed}")
    if (spec.track or spec.reid) and FAMILY_KINDS[first.model.manifest.family.kind].pieces:
        raise UsageError(f"{first.kind} gives no objects that can be followed; leave track and reid out")


def _tracker(spec: PipelineSpec, fps: float | None) -> Tracker | None:
    looked = {"appearance": True} if spec.reid else {}
    return track.make(spec.track, looked | spec.track_options, fps=fps) if spec.track else None


def _governor(spec: PipelineSpec, levels: tuple[Level, ...], zones: Sequence[ThermalZone]) -> Governor | None:
    if len(levels) < 2:
        return None
    limits = {zone.name: zone.throttle_c for zone in zones if zone.throttle_c is not None}
    return Governor(len(levels), limits_c=limits, deadline_ms=spec.deadline_ms)


def _open_sinks(session: Session, given: Sequence[tuple[str, Sink, Policy]], opened: ExitStack) -> None:
    spec, profile = session.spec, session.profile
    wanted = [*(parse_sink(text) for text in spec.sinks), *given]
    if spec.live:
        session.live = LiveServer(spec.live, session.status, token=spec.live_token)
        wanted.append(("live", session.live, "latest"))
    for name, sink, policy in wanted:
        # A file keeps every frame of a file; nothing may hold a live camera up.
        kept: Policy = "latest" if session.policy == "latest" else policy
        runner = SinkRunner(name, sink, policy=kept, on_event=profile.event, on_time=profile.stage)
        runner.open(session.facts)
        opened.callback(runner.close)
        session.sinks.append(runner)
    if session.live is not None:
        session.notes.append(f"Live page: {session.live.address}")


def _artifact(level: Level) -> ArtifactFigures:
    manifest = level.model.manifest
    return ArtifactFigures(
        target=manifest.target,
        title=manifest.name,
        backend=manifest.backend,
        precision=manifest.precision,
        role="optimized",
        tag="measured",
        file=manifest.model,
        file_bytes=manifest.model_bytes,
        chain=manifest.chain,
    )
