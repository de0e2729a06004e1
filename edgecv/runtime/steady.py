"""Times that never go back, from a clock that may."""

from __future__ import annotations


class SteadyTime:
    """Follows one clock. Where it steps, time goes on from a given moment, at the clock's own pace."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._shift_s = 0.0

    def take(self, raw_s: float, *, resume_s: float, latest_s: float | None = None) -> tuple[float, bool]:
        """The time for what the clock says, in seconds, and whether the clock stepped.

        It stepped where it went back, or where it is beyond ``latest_s``; time then goes on at ``resume_s``
        (never before the last one), and what follows keeps its distance from there.
        """
        time_s = raw_s + self._shift_s
        back = self._last_s is not None and time_s < self._last_s
        stepped = back or (latest_s is not None and time_s > latest_s)
        if stepped:
            time_s = resume_s if self._last_s is None else max(resume_s, self._last_s)
            self._shift_s = time_s - raw_s
        self._last_s = time_s
        return time_s, stepped

    def after(self, gap_s: float) -> float:
        """The time ``gap_s`` seconds after the last one; 0 before there was one."""
        return 0.0 if self._last_s is None else self._last_s + gap_s

    def restart(self) -> None:
        """Another clock from here on: what the last one was off by is forgotten."""
        self._shift_s = 0.0
