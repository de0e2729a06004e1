"""How long a camera is waited for, and how it is sought again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Persistence:
    """How long a camera is waited for, and how it is sought again.

    No whole frame for ``stall_s`` seconds (two frame times where these are longer) is a stall. The pause before
    attempt n is ``first_s * factor ** n``, at most ``longest_s``, shortened by up to a tenth so that many cameras
    do not come back in step. After ``attempts`` failures in a row (None: never) the camera is lost for good.
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
