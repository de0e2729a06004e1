"""Which artifact of a ladder to use: down before the board gets too hot or too slow, up again with care."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GovernorRules:
    """When to move. Temperatures in degrees Celsius, times in seconds.

    It steps down where a zone would reach its limit less ``guard_c`` within ``horizon_s`` at its present
    slope, where a throttle flag is up, or where the deadline is missed. It steps up where every zone has been
    ``margin_c`` below its limit for ``calm_s``, and the faster model has time to spare (its latency is at most
    ``spare`` of the deadline). A step up that has to be taken back within ``calm_s`` doubles the calm
    needed for the next, up to 16 times.
    """

    guard_c: float = 2.0
    horizon_s: float = 20.0
    margin_c: float = 8.0
    calm_s: float = 30.0
    spare: float = 0.6
    dwell_s: float = 3.0
    slope_window_s: float = 15.0


@dataclass(frozen=True)
class Decision:
    """The level to use (0 is the best model), and why it changed ("" where it did not)."""

    level: int
    why: str = ""


class Governor:
    """Decides once a second; deterministic, the clock is what `update` is told.

    ``levels`` artifacts, the fastest last. ``limits_c`` are the throttle temperatures by zone;
    ``deadline_ms`` is the longest time that a frame may take, None for no such limit.
    """

    def __init__(
        self,
        levels: int,
        *,
        limits_c: Mapping[str, float],
        deadline_ms: float | None = None,
        rules: GovernorRules | None = None,
    ) -> None:
        self._levels, self._limits_c, self._deadline_ms = levels, dict(limits_c), deadline_ms
        self._rules = rules or GovernorRules()
        self._history: dict[str, deque[tuple[float, float]]] = {}
        self._level = 0
        self._changed_s: float | None = None
        self._went_up_s: float | None = None
        self._calm_since_s: float | None = None
        self._patience = 1.0

    def update(
        self,
        now_s: float,
        temperature_c: Mapping[str, float],
        *,
        latency_ms: float | None,
        flags: Sequence[str] = (),
    ) -> Decision:
        """Take new readings; ``latency_ms`` is the median time of the last frames, None where there is none."""
        rules = self._rules
        self._remember(now_s, temperature_c)
        worry = self._worry(temperature_c, latency_ms, flags)
        if self._changed_s is not None and now_s - self._changed_s < rules.dwell_s:
            return Decision(self._level)
        if worry:
            self._calm_since_s = None
            if self._level + 1 < self._levels:
                return self._down(now_s, worry)
            return Decision(self._level)
        if self._level == 0 or not self._calm(temperature_c, latency_ms):
            self._calm_since_s = None
            return Decision(self._level)
        if self._calm_since_s is None:
            self._calm_since_s = now_s
        if now_s - self._calm_since_s < rules.calm_s * self._patience:
            return Decision(self._level)
        self._level -= 1
        self._changed_s = self._went_up_s = now_s
        self._calm_since_s = None
        return Decision(self._level, f"cool and in time for {rules.calm_s * self._patience:.0f} s")

    def _down(self, now_s: float, why: str) -> Decision:
        if self._went_up_s is not None and now_s - self._went_up_s < self._rules.calm_s * self._patience:
            self._patience = min(16.0, self._patience * 2)
        self._level += 1
        self._changed_s, self._went_up_s = now_s, None
        return Decision(self._level, why)

    def _remember(self, now_s: float, temperature_c: Mapping[str, float]) -> None:
        for zone, degrees in temperature_c.items():
            history = self._history.setdefault(zone, deque(maxlen=256))
            history.append((now_s, degrees))
            while history and now_s - history[0][0] > self._rules.slope_window_s:
                history.popleft()

    def _slope(self, zone: str) -> float:
        """Degrees per second over the window; 0 from fewer than four readings."""
        history = self._history.get(zone, ())
        if len(history) < 4:
            return 0.0
        times, degrees = np.array(history).T
        spread = times - times.mean()
        return float((spread * (degrees - degrees.mean())).sum() / max(float((spread**2).sum()), 1e-9))

    def _worry(self, temperature_c: Mapping[str, float], latency_ms: float | None, flags: Sequence[str]) -> str:
        rules = self._rules
        if flags:
            return flags[0]
        for zone, degrees in temperature_c.items():
            limit = self._limits_c.get(zone)
            if limit is None:
                continue
            coming = degrees + max(0.0, self._slope(zone)) * rules.horizon_s
            if coming >= limit - rules.guard_c:
                return f"{zone} is at {degrees:.0f} degrees and would reach {limit:g} within {rules.horizon_s:g} s"
        if self._deadline_ms is not None and latency_ms is not None and latency_ms > self._deadline_ms:
            return f"frames take {latency_ms:.1f} ms, {self._deadline_ms:g} are allowed"
        return ""

    def _calm(self, temperature_c: Mapping[str, float], latency_ms: float | None) -> bool:
        cool = all(
            degrees <= self._limits_c[zone] - self._rules.margin_c
            for zone, degrees in temperature_c.items()
            if zone in self._limits_c
        )
        if self._deadline_ms is None or latency_ms is None:
            return cool
        return cool and latency_ms <= self._rules.spare * self._deadline_ms
