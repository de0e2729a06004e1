"""The machine that measures: what it is, how hot it is, and whether it was held back meanwhile.

All of it is read from procfs and sysfs below a root that tests replace; what a machine does not
offer is left out, never guessed.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv.core.figures import MachineFacts
from edgecv.core.target import ThermalZone

_RASPBERRY_BITS = {
    0: "under-voltage",
    1: "the processor's clock was capped",
    2: "throttled",
    3: "the soft temperature limit was reached",
}
_RASPBERRY_PATHS = (
    "sys/devices/platform/soc/soc:firmware/get_throttled",
    "sys/devices/platform/soc*/*firmware/get_throttled",
)
_BUSY_SHARE = 0.5
_STEAL_SHARE = 0.02


@dataclass(frozen=True)
class Readings:
    """One look at the machine. Temperatures in degrees Celsius by zone type, clocks in MHz by CPU.

    ``counters`` count throttle events since boot by name; ``flags`` name what holds the machine back now.
    """

    temperature_c: dict[str, float]
    clock_mhz: dict[str, float]
    counters: dict[str, int]
    flags: tuple[str, ...]


def machine_facts(engines: Mapping[str, str], *, root: Path = Path("/")) -> MachineFacts:
    """This machine: system, processor, cores that this process may use, memory in 10^6 bytes, board.

    ``engines`` are name and version of the inference engines in use.
    """
    return MachineFacts(
        system=f"{platform.system()} {platform.release()}".strip(),
        machine=platform.machine(),
        cpu=_cpu_name(root),
        cores=_cores(),
        memory_mb=_memory_mb(root),
        python=platform.python_version(),
        engines=dict(engines),
        board=_board(root),
    )


def peak_rss_mb(*, root: Path = Path("/")) -> float | None:
    """Largest resident memory of this process so far, in 10^6 bytes; None on systems that do not tell."""
    # Linux counts the memory of the parent at the start into ru_maxrss, so its own figure comes first.
    for line in _text(root / "proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / 1e6 if sys.platform == "darwin" else float(peak) * 1024 / 1e6


class Sampler:
    """Looks at temperatures, clocks and throttling while a measurement runs.

    ``zones`` are the target's sensors with their limits; the kernel's own passive trip points and
    cooling devices are looked at besides. Implements `edgecv.measure.latency.Watch`.
    """

    def __init__(
        self,
        *,
        zones: Sequence[ThermalZone] = (),
        root: Path = Path("/"),
        load_average: Callable[[], tuple[float, float, float]] | None = None,
    ) -> None:
        self._limits = {zone.name: zone.throttle_c for zone in zones if zone.throttle_c is not None}
        self._root = root
        self._load_average = load_average or _load_average
        self._first: Readings | None = None
        self._cpu_before: tuple[int, int] | None = None
        self._reasons: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self.max_temperature_c: dict[str, float] = {}
        self.clock_range_mhz: tuple[float, float] | None = None

    def sample(self) -> Readings:
        """Look at the machine now; the first look is what later ones are held against."""
        found = read_machine(self._root)
        if self._first is None:
            self._first = found
            self._cpu_before = _steal(self._root)
            busy = self._load_average()[0]
            if busy > _BUSY_SHARE * _cores():
                self._notes[f"the machine was busy before: load average {busy:.1f} on {_cores()} cores"] = None
        for flag in found.flags:
            self._reasons[flag] = None
        for name, count in found.counters.items():
            if count > self._first.counters.get(name, count):
                self._reasons[f"throttled: {name} rose"] = None
        for name, degrees in found.temperature_c.items():
            self.max_temperature_c[name] = max(degrees, self.max_temperature_c.get(name, degrees))
            limit = self._limits.get(name)
            if limit is not None and degrees >= limit:
                self._reasons[f"{name} reached its throttle limit of {limit:g} degrees Celsius"] = None
        self._widen_clock(list(found.clock_mhz.values()))
        return found

    @property
    def invalid(self) -> str:
        """Why times taken since the first `sample` must not be used, one reason after the other; or empty."""
        return "; ".join(self._reasons)

    @property
    def notes(self) -> tuple[str, ...]:
        """What may have disturbed the times without making them wrong: other load, a hypervisor's share."""
        return (*self._notes, *self._steal_note())

    def _widen_clock(self, clocks: list[float]) -> None:
        if clocks:
            low, high = self.clock_range_mhz or (min(clocks), max(clocks))
            self.clock_range_mhz = (min(low, *clocks), max(high, *clocks))

    def _steal_note(self) -> tuple[str, ...]:
        now = _steal(self._root)
        if now is None or self._cpu_before is None or now[1] <= self._cpu_before[1]:
            return ()
        share = (now[0] - self._cpu_before[0]) / (now[1] - self._cpu_before[1])
        return (f"the hypervisor took {share:.0%} of the processor time",) if share >= _STEAL_SHARE else ()


def read_machine(root: Path = Path("/")) -> Readings:
    """One look at sysfs below ``root``; what is missing or cannot be read is left out."""
    temperature_c: dict[str, float] = {}
    flags: list[str] = []
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        kind, millidegrees = _text(zone / "type"), _number(zone / "temp")
        if not kind or millidegrees is None:
            continue
        degrees = millidegrees / 1000.0
        temperature_c[kind] = max(degrees, temperature_c.get(kind, degrees))
        flags.extend(_passive_trips(zone, kind, millidegrees))
    flags.extend(_cooling(root))
    flags.extend(_raspberry(root))
    clocks = {}
    for path in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")):
        kilohertz = _number(path)
        if kilohertz is not None:
            clocks[path.parent.parent.name] = kilohertz / 1000.0
    return Readings(temperature_c, clocks, _counters(root), tuple(dict.fromkeys(flags)))


def _passive_trips(zone: Path, kind: str, millidegrees: int) -> list[str]:
    """At the highest trip point of the type "passive" the kernel lowers clocks; lower ones only arm it."""
    limits = []
    for path in zone.glob("trip_point_*_type"):
        limit = _number(path.with_name(path.name.replace("_type", "_temp")))
        if _text(path) == "passive" and limit is not None and limit > 0:  # unused ones are 0 or below
            limits.append(limit)
    if not limits or millidegrees < max(limits):
        return []
    return [f"{kind} reached its passive trip point of {max(limits) / 1000:g} degrees Celsius"]


def _cooling(root: Path) -> list[str]:
    """Cooling devices that lower clocks; fans are none of these."""
    found = []
    for device in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind, state = _text(device / "type"), _number(device / "cur_state")
        slows = kind == "Processor" or "cpufreq" in kind or "devfreq" in kind
        if slows and state:
            found.append(f"throttled: the cooling device {kind} was active")
    return found


def _raspberry(root: Path) -> list[str]:
    """Bits 0 to 3 of the Raspberry Pi firmware's word say what holds the board back now."""
    for pattern in _RASPBERRY_PATHS:
        for path in sorted(root.glob(pattern)):
            try:
                word = int(_text(path), 16)
            except ValueError:
                continue
            return [f"Raspberry Pi firmware: {name}" for bit, name in _RASPBERRY_BITS.items() if word >> bit & 1]
    return []


def _counters(root: Path) -> dict[str, int]:
    """Events since boot: thermal throttling (x86), over-current (Jetson), under-voltage (Raspberry Pi)."""
    patterns = (
        "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count",
        "sys/class/hwmon/hwmon*/oc*_event_cnt",
    )
    counters = {}
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            count = _number(path)
            if count is not None:
                counters[path.relative_to(root).as_posix()] = count
    for path in sorted(root.glob("sys/class/hwmon/hwmon*/in0_lcrit_alarm")):
        alarm = _number(path)
        if alarm is not None and _text(path.with_name("name")) == "rpi_volt":
            counters["rpi_volt under-voltage alarm"] = alarm
    return counters


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\x00\n ")
    except OSError:  # sensors that are switched off answer with an error
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None


def _cores() -> int:
    """Processors that this process may use (`os.sched_getaffinity` is missing on macOS)."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def _cpu_name(root: Path) -> str:
    fields: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    named = fields.get("model name") or fields.get("Hardware")
    if named:
        return named
    if "CPU part" in fields:  # 64-bit Arm kernels give numbers only
        return f"Arm implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}"
    return platform.processor() or platform.machine()


def _board(root: Path) -> str:
    """What the device tree calls the board; "" on machines without one."""
    return _text(root / "proc/device-tree/model") or _text(root / "sys/firmware/devicetree/base/model")


def _memory_mb(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) * 1024 / 1e6)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6)
    return 0


def _steal(root: Path) -> tuple[int, int] | None:
    """Time that the hypervisor gave to others, and all time, in ticks since boot."""
    first = _text(root / "proc/stat").partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None
    ticks = [int(value) for value in first[1:9]]
    return ticks[7], sum(ticks)


def _load_average() -> tuple[float, float, float]:
    return os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
