"""Counts, rates and events of a loop, on a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass

from edgecv.core.trace import Trace
from edgecv.runtime.profile import MAX_EVENTS, Profile


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


def run(profile: Profile, clock: Clock, *, frames: int, step_s: float, late: int = 0) -> None:
    for index in range(frames):
        captured_s = clock.now_s
        trace = Trace(clock=clock)
        with trace.stage("infer"):
            clock.now_s += step_s * (3 if index < late else 1)
        profile.frame(trace, captured_s, deadline_ms=step_s * 2000)


def test_rates_ages_and_misses() -> None:
    clock = Clock()
    profile = Profile(clock=clock)
    assert profile.fps() == 0
    assert profile.mean_fps() == 0
    run(profile, clock, frames=50, step_s=0.02, late=4)
    assert profile.counts.frames == 50
    assert profile.counts.misses == 4
    assert abs(profile.mean_fps() - 49 / 1.1) < 0.01
    assert abs(profile.fps() - 49 / 1.1) < 1
    times = profile.stage_figures()[0].times
    assert times.samples == 50
    assert abs(times.max_ms - 60) < 1e-6
    assert profile.stage_status()[0].name == "infer"
    clock.now_s += 10
    assert profile.fps() < 6, "frames that stopped coming are no rate"


def test_events_are_bounded_and_all_counted() -> None:
    clock = Clock()
    profile = Profile(clock=clock)
    clock.now_s += 1.5
    for index in range(MAX_EVENTS + 50):
        profile.event("camera", f"event {index}")
    assert len(profile.events) == MAX_EVENTS
    assert profile.events_seen == MAX_EVENTS + 50
    assert profile.events[0].at_s == 1.5
