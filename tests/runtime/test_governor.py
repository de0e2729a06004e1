"""The governor on a simulated board: a thermal model that throttles, driven by the load of each artifact."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from edgecv.runtime.governor import Decision, Governor, GovernorRules

LIMIT_C = 80.0
DEADLINE_MS = 33.0


@dataclass
class Board:
    """One thermal mass with a fan-less case: it warms with the watts and cools towards the room.

    Above the limit the clock falls to 55 % until the board is 5 degrees below it: what a Raspberry Pi does.
    """

    room_c: float = 30.0
    resistance: float = 8.0
    capacity: float = 12.0
    temperature_c: float = 40.0
    throttled: bool = False
    history: list[float] = field(default_factory=list)

    def step(self, watts: float, seconds: float) -> None:
        flow = watts * (0.6 if self.throttled else 1.0) - (self.temperature_c - self.room_c) / self.resistance
        self.temperature_c += flow / self.capacity * seconds
        if self.temperature_c >= LIMIT_C:
            self.throttled = True
        elif self.temperature_c < LIMIT_C - 5:
            self.throttled = False
        self.history.append(self.temperature_c)


MODELS = [(28.0, 8.0), (18.0, 6.0), (9.0, 3.5)]
"""Milliseconds at full clock and watts: fp16 at 640, int8 at 640, int8 at 320."""


def drive(governor: Governor | None, seconds: int = 900, board: Board | None = None) -> tuple[float, Board, list[int]]:
    """Share of seconds in which the deadline was kept, the board, and the level of each second."""
    board, level, kept, levels = board or Board(), 0, 0, []
    for second in range(seconds):
        model_ms, watts = MODELS[level]
        latency_ms = model_ms / (0.55 if board.throttled else 1.0)
        board.step(watts, 1.0)
        kept += latency_ms <= DEADLINE_MS
        levels.append(level)
        if governor is not None:
            flags = ("throttled",) if board.throttled else ()
            found = governor.update(float(second), {"cpu": board.temperature_c}, latency_ms=latency_ms, flags=flags)
            level = found.level
    return kept / seconds, board, levels


def test_the_deadline_is_kept_where_a_fixed_pipeline_loses_it() -> None:
    fixed, fixed_board, _ = drive(None)
    governed, board, levels = drive(Governor(3, limits_c={"cpu": LIMIT_C}, deadline_ms=DEADLINE_MS))
    assert fixed < 0.6
    assert max(fixed_board.history) >= LIMIT_C
    assert governed >= 0.99
    assert max(board.history) < LIMIT_C, "it steps down before the limit, not at it"
    assert min(levels) == 0
    changes = sum(one != other for one, other in itertools.pairwise(levels))
    assert changes <= 40, "it does not flutter"


def test_it_goes_up_again_when_the_heat_is_gone() -> None:
    governor = Governor(3, limits_c={"cpu": LIMIT_C})
    level = 0
    for second in range(40):
        level = governor.update(float(second), {"cpu": 60 + second * 0.6}, latency_ms=None).level
    assert level >= 1
    for second in range(40, 400):
        level = governor.update(float(second), {"cpu": 50.0}, latency_ms=None).level
    assert level == 0


def test_a_step_up_that_fails_is_tried_later_each_time() -> None:
    """Level 0 always misses the deadline: the tries must become rare."""
    governor = Governor(2, limits_c={}, deadline_ms=30, rules=GovernorRules(calm_s=10, dwell_s=1))
    level, ups = 0, []
    for second in range(1000):
        found = governor.update(float(second), {}, latency_ms=50.0 if level == 0 else 10.0)
        if found.level < level:
            ups.append(second)
        level = found.level
    pauses = [later - earlier for earlier, later in itertools.pairwise(ups)]
    assert len(pauses) >= 3
    assert pauses[-1] > 3 * pauses[0]


@pytest.mark.parametrize(
    ("reading", "latency_ms", "flags", "words"),
    [
        ({"cpu": 79.0}, None, (), "cpu is at 79"),
        ({"cpu": 40.0}, 50.0, (), "frames take 50.0 ms, 33 are allowed"),
        ({"cpu": 40.0}, 10.0, ("under-voltage",), "under-voltage"),
    ],
)
def test_why_it_steps_down(
    reading: dict[str, float], latency_ms: float | None, flags: tuple[str, ...], words: str
) -> None:
    found = Governor(2, limits_c={"cpu": 80}, deadline_ms=33).update(0.0, reading, latency_ms=latency_ms, flags=flags)
    assert found.level == 1
    assert words in found.why


def test_zones_without_a_limit_do_not_count_and_the_last_level_stays() -> None:
    governor = Governor(1, limits_c={"cpu": 80})
    assert governor.update(0.0, {"battery": 200.0}, latency_ms=None) == Decision(0)
    assert governor.update(1.0, {"cpu": 200.0}, latency_ms=None) == Decision(0)


def test_the_same_readings_give_the_same_decisions() -> None:
    first = drive(Governor(3, limits_c={"cpu": LIMIT_C}, deadline_ms=DEADLINE_MS))[2]
    assert drive(Governor(3, limits_c={"cpu": LIMIT_C}, deadline_ms=DEADLINE_MS))[2] == first
