"""Power sensors of a board, each with its name and what it covers; read below a root that tests replace.

Which rail is the total: the Jetson developer guide ("Power, thermal and performance" of each series) and, for
modules without an input rail, the sum of the rails that do not feed one another. RAPL: kernel documentation,
"Power capping framework".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgecv.measure.sysfs import number, numbered, text
from edgecv.measure.tools import Tools

_TOTALS = ("VDD_IN", "POM_5V_IN", "5V_IN", "VIN")
# A branch and the rail that feeds it: Jetson AGX Orin takes its memory's supply from the 5 V rail.
_BRANCHES = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}
_METERS = ("ina2xx", "ina219", "ina220", "ina226", "ina230", "ina231", "ina232", "ina237", "ina238", "ina260")
_PMIC_LINE = re.compile(r"(\S+)_([AV])\s+(?:current|volt)\(\d+\)=(-?[0-9.]+)[AV]")


@dataclass(frozen=True)
class PowerReading:
    """One look at a sensor: ``watts`` now, or (an energy counter) ``joules`` since it was first read.

    ``rails_w`` are the parts that the sensor tells apart, in watts by name; they may feed one another, so that
    their sum is not the total.
    """

    watts: float | None = None
    joules: float | None = None
    rails_w: dict[str, float] = field(default_factory=dict)


class PowerSensor(Protocol):
    """A source of power figures. ``every_s`` is how often it has something new to say."""

    @property
    def name(self) -> str:
        """The sensor's name, as it stands beside every figure."""
        ...

    @property
    def covers(self) -> str:
        """What its figures are of."""
        ...

    @property
    def every_s(self) -> float:
        """Seconds between two looks that are worth it."""
        ...

    def read(self) -> PowerReading | None:
        """Look now; None where it does not answer."""
        ...


@dataclass(frozen=True)
class RailSensor:
    """Rails that are read one by one; ``counted`` of them make up the total."""

    name: str
    covers: str
    rails: Mapping[str, Callable[[], float | None]]
    counted: tuple[str, ...]
    every_s: float = 0.2

    def read(self) -> PowerReading | None:
        """See `PowerSensor.read`; None where a rail of the total does not answer."""
        rails_w = {name: watts for name, look in self.rails.items() if (watts := look()) is not None}
        if any(name not in rails_w for name in self.counted):
            return None
        return PowerReading(watts=sum(rails_w[name] for name in self.counted), rails_w=rails_w)


class RaplSensor:
    """Intel's and AMD's energy counters of each processor package, added up across their wrap-around."""

    covers = "the processor packages (cores, caches, memory controller); not memory, disks or losses of the supply"
    every_s = 1.0

    def __init__(self, zones: tuple[Path, ...]) -> None:
        self._zones = zones
        self.name = "RAPL " + ", ".join(text(zone / "name") for zone in zones)
        self._last: dict[Path, int] = {}
        self._microjoules = 0

    def read(self) -> PowerReading | None:
        """See `PowerSensor.read`. A wrap is seen if the counter is read at least once in its range (minutes)."""
        counts = {zone: number(zone / "energy_uj") for zone in self._zones}
        for zone, count in counts.items():
            if count is None:
                return None
            step = count - self._last.get(zone, count)
            if step < 0:
                step += number(zone / "max_energy_range_uj") or -step
            self._microjoules += step
            self._last[zone] = count
        return PowerReading(joules=self._microjoules / 1e6)


@dataclass(frozen=True)
class PmicSensor:
    """The Raspberry Pi 5's power management chip, by ``vcgencmd pmic_read_adc``."""

    tools: Tools
    name: str = "Raspberry Pi PMIC (vcgencmd pmic_read_adc)"
    covers: str = "the rails behind the board's power chip; not the wall: without its losses, USB and the 5 V pins"
    every_s: float = 1.0

    def read(self) -> PowerReading | None:
        """See `PowerSensor.read`: current times voltage of each rail that tells both."""
        rails_w = pmic_rails(self.tools.ask("vcgencmd", "pmic_read_adc"))
        return PowerReading(watts=sum(rails_w.values()), rails_w=rails_w) if rails_w else None


def pmic_rails(answer: str) -> dict[str, float]:
    """Watts by rail from what ``vcgencmd pmic_read_adc`` printed; rails without both figures are left out."""
    found: dict[str, dict[str, float]] = {}
    for rail, kind, value in _PMIC_LINE.findall(answer):
        found.setdefault(rail, {})[kind] = float(value)
    return {rail: pair["A"] * pair["V"] for rail, pair in found.items() if len(pair) == 2}


def find_power(root: Path = Path("/"), tools: Tools | None = None) -> tuple[PowerSensor | None, tuple[str, ...]]:
    """The sensor of this machine that covers most, and notes on those that cannot be read.

    Looked for in this order: the Jetson's INA3221 (hwmon, then the older iio layout), other INA2xx meters, the
    Raspberry Pi 5's PMIC (where ``tools`` are given), RAPL, and power figures of other chips (battery, graphics).
    """
    packages, notes = _rapl(root)
    rails = _ina3221(root) or _ina3221_iio(root)
    if rails:
        return _jetson(rails), ()
    meter = _hwmon_power(root, meters=True)
    if meter is not None:
        return meter, ()
    if tools is not None:
        pmic = PmicSensor(tools)
        if pmic.read() is not None:
            return pmic, ()
    if packages:
        return RaplSensor(packages), ()
    return _hwmon_power(root, meters=False), notes


def _jetson(rails: dict[str, Callable[[], float | None]]) -> RailSensor:
    total = next((name for name in _TOTALS if name in rails), None)
    if total is not None:
        covers = "the module, at its supply; not the carrier board" if total != "VIN" else "the board, at its supply"
        return RailSensor(f"INA3221 {total}", covers, rails, (total,))
    counted = tuple(name for name in rails if _BRANCHES.get(name) not in rails)
    return RailSensor(f"INA3221 {' + '.join(counted)}", "the module's rails; not the carrier board", rails, counted)


def _ina3221(root: Path) -> dict[str, Callable[[], float | None]]:
    """Rails of all INA3221 chips by label; channels 4 and up are sums and shunts, not rails."""
    rails: dict[str, Callable[[], float | None]] = {}
    for chip in numbered(root, "sys/class/hwmon/hwmon*"):
        if text(chip / "name") != "ina3221":
            continue
        for channel in (1, 2, 3):
            label = text(chip / f"in{channel}_label")
            look = _volts_times_amperes(chip, channel)
            if label and label.upper() != "NC" and look() is not None:
                rails.setdefault(label, look)
    if rails:
        for chip in numbered(root, "sys/class/hwmon/hwmon*"):  # Jetson Thor measures its input with one more chip
            if text(chip / "name") == "ina238" and number(chip / "power1_input") is not None:
                rails.setdefault("VIN", _scaled(chip / "power1_input", 1e6))
    return rails


def _volts_times_amperes(chip: Path, channel: int) -> Callable[[], float | None]:
    def look() -> float | None:
        microwatts = number(chip / f"power{channel}_input")
        if microwatts is not None:
            return microwatts / 1e6
        millivolts, milliamperes = number(chip / f"in{channel}_input"), number(chip / f"curr{channel}_input")
        if millivolts is None or milliamperes is None:
            return None
        return millivolts * milliamperes / 1e6

    return look


def _ina3221_iio(root: Path) -> dict[str, Callable[[], float | None]]:
    """The layout of JetPack 4: ``rail_name_0`` and ``in_power0_input`` in mW below an iio device."""
    rails: dict[str, Callable[[], float | None]] = {}
    for pattern in ("sys/bus/i2c/drivers/ina3221x/*/iio:device*", "sys/bus/iio/devices/iio:device*"):
        for device in numbered(root, pattern):
            for channel in (0, 1, 2):
                label = text(device / f"rail_name_{channel}")
                look = _scaled(device / f"in_power{channel}_input", 1e3)
                if label and look() is not None:
                    rails.setdefault(label, look)
    return rails


def _scaled(path: Path, divisor: float) -> Callable[[], float | None]:
    def look() -> float | None:
        value = number(path)
        return None if value is None else value / divisor

    return look


def _rapl(root: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The packages that can be read (their sub-zones are parts of them), and a note on those that cannot."""
    zones = [path for path in numbered(root, "sys/class/powercap/intel-rapl:*") if path.name.count(":") == 1]
    packages = [zone for zone in zones if text(zone / "name").startswith("package")]
    readable = tuple(zone for zone in packages if number(zone / "energy_uj") is not None)
    if len(readable) == len(packages):
        return readable, ()
    return (), (
        "This processor counts its energy (RAPL), but only root may read it; run as root, or allow it: "
        "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj",
    )


def _hwmon_power(root: Path, *, meters: bool) -> RailSensor | None:
    """The first chip that tells its power in microwatts; ``meters`` are chips made to measure a supply."""
    for chip in numbered(root, "sys/class/hwmon/hwmon*"):
        name = text(chip / "name")
        if (name in _METERS) is not meters:
            continue
        for file in ("power1_input", "power1_average"):
            look = _scaled(chip / file, 1e6)
            if look() is not None:
                label = text(chip / "power1_label") or name or chip.name
                covers = f"what the chip {name or chip.name} measures"
                return RailSensor(f"hwmon {name or chip.name} {file}", covers, {label: look}, (label,))
    return None
