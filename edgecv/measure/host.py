"""The machine that measures: what it is, and whether it was held back meanwhile."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgecv.core.figures import LoopEvent, MachineFacts
from edgecv.core.target import ThermalZone
from edgecv.measure.boards import power_mode
from edgecv.measure.sensors import Readings, read_machine
from edgecv.measure.sysfs import text
from edgecv.measure.tools import Tools

MAX_EVENTS = 200
_BUSY_SHARE = 0.5
_STEAL_SHARE = 0.02


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
        power_mode=power_mode(root, tools_of(root)),
    )


def peak_rss_mb(*, root: Path = Path("/")) -> float | None:
    """Largest resident memory of this process so far, in 10^6 bytes; None on systems that do not tell."""
    # Linux counts the memory of the parent at the start into ru_maxrss, so its own figure comes first.
    for line in text(root / "proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / 1e6 if sys.platform == "darwin" else float(peak) * 1024 / 1e6


def tools_of(root: Path) -> Tools | None:
    """The board's own programs; none where ``root`` is a made-up machine."""
    return Tools() if root == Path("/") else None


class Sampler:
    """Looks at temperatures, clocks and throttling while a measurement runs.

    ``zones`` are the target's sensors with their limits; the kernel's own passive trip points and
    cooling devices are looked at besides. Implements `edgecv.measure.latency.Watch`. The first 200 events are kept.
    """

    def __init__(
        self,
        *,
        zones: Sequence[ThermalZone] = (),
        root: Path = Path("/"),
        load_average: Callable[[], tuple[float, float, float]] | None = None,
        tools: Tools | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = {zone.name: zone.throttle_c for zone in zones if zone.throttle_c is not None}
        self._root = root
        self._load_average = load_average or _load_average
        self._tools = tools or tools_of(root)
        self._clock = clock
        self._last: Readings | None = None
        self._cpu_before: tuple[int, int] | None = None
        self._started_s = 0.0
        self._reasons: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._events: list[LoopEvent] = []
        self.max_temperature_c: dict[str, float] = {}
        self.clock_range_mhz: tuple[float, float] | None = None

    def sample(self) -> Readings:
        """Look at the machine now. Its ``flags`` also name a zone at its limit, and counters that rose since before."""
        found = read_machine(self._root, self._tools)
        now_s = self._clock()
        if self._last is None:
            self._started_s = now_s
            self._cpu_before = _steal(self._root)
            busy = self._load_average()[0]
            if busy > _BUSY_SHARE * _cores():
                self._notes[f"the machine was busy before: load average {busy:.1f} on {_cores()} cores"] = None
        flags = dict.fromkeys([*found.flags, *self._risen(found), *self._at_limit(found)])
        self._reasons.update(flags)
        before = self._last.flags if self._last is not None else ()
        self._note_events(now_s - self._started_s, [name for name in flags if name not in before], before, flags)
        for name, degrees in found.temperature_c.items():
            self.max_temperature_c[name] = max(degrees, self.max_temperature_c.get(name, degrees))
        self._widen_clock(list(found.clock_mhz.values()))
        self._last = replace(found, flags=tuple(flags))
        return self._last

    @property
    def invalid(self) -> str:
        """Why times taken since the first `sample` must not be used, one reason after the other; or empty."""
        return "; ".join(self._reasons)

    @property
    def events(self) -> tuple[LoopEvent, ...]:
        """When something began to hold the machine back and when it ended; times are from the first `sample`."""
        return tuple(self._events)

    @property
    def notes(self) -> tuple[str, ...]:
        """What may have disturbed the times without making them wrong: other load, a hypervisor's share."""
        return (*self._notes, *self._steal_note())

    def _risen(self, found: Readings) -> list[str]:
        """Counters that are higher than at the look before; the firmware's records have names that say all."""
        before = self._last.counters if self._last is not None else found.counters
        risen = [name for name, count in found.counters.items() if count > before.get(name, count)]
        return [name if name.startswith("Raspberry Pi") else f"throttled: {name} rose" for name in risen]

    def _at_limit(self, found: Readings) -> list[str]:
        limits = ((name, self._limits.get(name), degrees) for name, degrees in found.temperature_c.items())
        return [
            f"{name} reached its throttle limit of {limit:g} degrees Celsius"
            for name, limit, degrees in limits
            if limit is not None and degrees >= limit
        ]

    def _note_events(self, at_s: float, began: list[str], before: Sequence[str], flags: Mapping[str, None]) -> None:
        found = [(_kind(name), name) for name in began]
        found += [("over", name) for name in before if name not in flags]
        room = MAX_EVENTS - len(self._events)
        self._events += [LoopEvent(round(at_s, 3), kind, name) for kind, name in found[:room]]

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


def _kind(flag: str) -> str:
    return "under-voltage" if "under-voltage" in flag else "throttled"


def _cores() -> int:
    """Processors that this process may use (`os.sched_getaffinity` is missing on macOS)."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def _cpu_name(root: Path) -> str:
    fields: dict[str, str] = {}
    for line in text(root / "proc/cpuinfo").splitlines():
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
    return text(root / "proc/device-tree/model") or text(root / "sys/firmware/devicetree/base/model")


def _memory_mb(root: Path) -> int:
    for line in text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) * 1024 / 1e6)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6)
    return 0


def _steal(root: Path) -> tuple[int, int] | None:
    """Time that the hypervisor gave to others, and all time, in ticks since boot."""
    first = text(root / "proc/stat").partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None
    ticks = [int(value) for value in first[1:9]]
    return ticks[7], sum(ticks)


def _load_average() -> tuple[float, float, float]:
    return os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
