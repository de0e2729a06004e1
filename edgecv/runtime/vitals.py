"""The board under a running loop: heat, power and what holds it back, looked at once a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgecv.core.figures import PowerFigures
from edgecv.core.target import ThermalZone
from edgecv.measure.energy import PowerMeter, open_meter
from edgecv.measure.host import Sampler
from edgecv.measure.sensors import Readings
from edgecv.measure.tools import Tools


@dataclass
class Vitals:
    """The last look. ``power_w`` is in watts by rail; ``total`` is the whole, other rails are parts of it.

    ``note`` of `look` is told the kind (``heat`` or ``power``) and the words of each change.
    """

    sampler: Sampler
    power: PowerMeter | None = None
    flags: tuple[str, ...] = ()
    temperature_c: dict[str, float] = field(default_factory=dict)
    power_w: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        """Take the first look, which later ones are held against."""
        self.sampler.sample()
        if self.power is not None:
            self.power.restart()
            self.power.sample()

    def look(self, note: Callable[[str, str], None]) -> Readings:
        """Look at the board now."""
        found = self.sampler.sample()
        if found.flags != self.flags:
            said = "; ".join(found.flags) or "nothing holds the board back any more"
            note("power" if "under-voltage" in said else "heat", said)
        self.flags, self.temperature_c = found.flags, found.temperature_c
        if self.power is not None:
            watts = self.power.lap()
            self.power_w = {**self.power.rails_w, **({} if watts is None else {"total": watts})}
        return found

    def power_figures(self, *, frames: int, fps: float) -> PowerFigures | None:
        """Power since `start`; at the mean rate ``fps``, a frame costs the mean power over the rate."""
        if self.power is None:
            return None
        return self.power.figures(seconds=frames / fps if fps > 0 else 0.0, frames=frames if fps > 0 else 0)


def open_vitals(zones: Sequence[ThermalZone] = ()) -> Vitals:
    """What this machine offers; ``zones`` are the target's sensors with their limits."""
    tools = Tools()
    return Vitals(Sampler(zones=zones, tools=tools), open_meter(tools=tools)[0])
