"""One look at the machine: temperatures, clocks, fans, and what holds it back.

All of it is read from sysfs below a root that tests replace, and from the board's own programs; what a
machine does not offer is left out, never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from edgecv.measure import boards
from edgecv.measure.sysfs import number, numbered, text
from edgecv.measure.tools import Tools

# Chips' names of the same two devices: Jetson GPUs by generation, memory controllers by maker.
_GPU_NAMES = ("gpu", "gp10b", "gv11b", "ga10b", "gb10b", "mali")
_MEMORY_NAMES = ("emc", "dmc", "bwmgr")
_MEMORY_CLOCKS = ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/clk/emc/clk_rate")


@dataclass(frozen=True)
class Readings:
    """One look at the machine. Temperatures in degrees Celsius by zone type, clocks in MHz by CPU.

    ``device_mhz`` are clocks of other devices (``gpu``, ``emc``: the memory controller). ``fans`` are shares of
    full power, 0 to 1, and ``fan_rpm`` their turns per minute. ``counters`` count throttle events since boot by
    name; ``flags`` name what holds the machine back now.
    """

    temperature_c: dict[str, float]
    clock_mhz: dict[str, float]
    counters: dict[str, int]
    flags: tuple[str, ...]
    device_mhz: dict[str, float] = field(default_factory=dict)
    fans: dict[str, float] = field(default_factory=dict)
    fan_rpm: dict[str, float] = field(default_factory=dict)


def read_machine(root: Path = Path("/"), tools: Tools | None = None) -> Readings:
    """One look at sysfs below ``root``; what is missing or cannot be read is left out.

    ``tools`` are asked for what a Raspberry Pi without the right sysfs files tells; None asks nothing.
    """
    temperature_c, flags = _zones(root)
    if not temperature_c:
        degrees = boards.raspberry_temperature_c(tools)
        temperature_c = {} if degrees is None else {"vcgencmd": degrees}
    cooling_flags, fans = _cooling(root)
    flags += cooling_flags
    counters = _counters(root)
    word = boards.raspberry_word(root, tools)
    if word is not None:
        flags += boards.raspberry_flags(word)
        counters |= boards.raspberry_records(word)
    rpm = _fan_rpm(root)
    return Readings(
        temperature_c=temperature_c,
        clock_mhz=_cpu_clocks(root),
        counters=counters,
        flags=tuple(dict.fromkeys(flags)),
        device_mhz=_device_clocks(root),
        fans=fans | _fan_power(root),
        fan_rpm=rpm,
    )


def _zones(root: Path) -> tuple[dict[str, float], list[str]]:
    temperature_c: dict[str, float] = {}
    flags: list[str] = []
    for zone in numbered(root, "sys/class/thermal/thermal_zone*"):
        kind, millidegrees = text(zone / "type"), number(zone / "temp")
        if not kind or millidegrees is None:
            continue
        degrees = millidegrees / 1000.0
        temperature_c[kind] = max(degrees, temperature_c.get(kind, degrees))
        flags.extend(_passive_trips(zone, kind, millidegrees))
    return temperature_c, flags


def _passive_trips(zone: Path, kind: str, millidegrees: int) -> list[str]:
    """At the highest trip point of the type "passive" the kernel lowers clocks; lower ones only arm it."""
    limits = []
    for path in zone.glob("trip_point_*_type"):
        limit = number(path.with_name(path.name.replace("_type", "_temp")))
        if text(path) == "passive" and limit is not None and limit > 0:  # unused ones are 0 or below
            limits.append(limit)
    if not limits or millidegrees < max(limits):
        return []
    return [f"{kind} reached its passive trip point of {max(limits) / 1000:g} degrees Celsius"]


def _cooling(root: Path) -> tuple[list[str], dict[str, float]]:
    """Cooling devices that are active and lower clocks, and the fans among them as shares of their highest state."""
    found, fans = [], {}
    for device in numbered(root, "sys/class/thermal/cooling_device*"):
        kind, state = text(device / "type"), number(device / "cur_state")
        if state is None:
            continue
        slows = kind == "Processor" or any(word in kind for word in ("cpufreq", "devfreq", "throttle-alert"))
        # Jetsons up to Xavier name theirs "cpu-balanced" and "gpu-balanced".
        if (slows or kind.endswith("-balanced")) and state:
            found.append(f"throttled: the cooling device {kind} was active")
        highest = number(device / "max_state")
        if "fan" in kind.lower() and highest:
            fans[kind] = state / highest
    return found, fans


def _counters(root: Path) -> dict[str, int]:
    """Events since boot: thermal throttling (x86), over-current (Jetson), under-voltage (Raspberry Pi)."""
    patterns = (
        "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count",
        "sys/class/hwmon/hwmon*/oc*_event_cnt",
    )
    counters = {}
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            count = number(path)
            if count is not None:
                counters[path.relative_to(root).as_posix()] = count
    for path in sorted(root.glob("sys/class/hwmon/hwmon*/in0_lcrit_alarm")):
        alarm = number(path)
        if alarm is not None and text(path.with_name("name")) == "rpi_volt":
            counters["rpi_volt under-voltage alarm"] = alarm
    return counters


def _cpu_clocks(root: Path) -> dict[str, float]:
    clocks = {}
    for path in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")):
        kilohertz = number(path)
        if kilohertz is not None:
            clocks[path.parent.parent.name] = kilohertz / 1000.0
    return clocks


def _device_clocks(root: Path) -> dict[str, float]:
    """Clocks of the GPU, the memory controller and other devices with devfreq, in MHz."""
    clocks: dict[str, float] = {}
    for device in numbered(root, "sys/class/devfreq/*"):
        hertz = number(device / "cur_freq")
        if hertz is not None:
            clocks[_device_name(device.name)] = hertz / 1e6
    for pattern in _MEMORY_CLOCKS:  # root only
        hertz = number(root / pattern)
        if hertz is not None:
            clocks.setdefault("emc", hertz / 1e6)
    for path in numbered(root, "sys/class/drm/card[0-9]/gt_act_freq_mhz"):  # Intel; 0 while it sleeps
        megahertz = number(path)
        if megahertz is not None:
            clocks.setdefault("gpu", float(megahertz))
    return clocks


def _device_name(folder: str) -> str:
    """``gpu`` for ``17000000.ga10b``, ``emc`` for ``31b0000.emc``; others keep their name, without the address."""
    name = re.sub(r"^[0-9a-f]+\.|\.[0-9a-f]+$", "", folder)
    if any(word in name for word in _GPU_NAMES):
        return "gpu"
    return "emc" if any(word in name for word in _MEMORY_NAMES) else name


def _fan_power(root: Path) -> dict[str, float]:
    """Fans of hwmon: the share of full power that is asked of them (``pwm1`` is 0 to 255)."""
    found = {}
    for chip in boards.fan_chips(root):
        power = number(chip / "pwm1")
        if power is not None:
            found[text(chip / "name") or chip.name] = min(1.0, max(0.0, power / 255))
    return found


def _fan_rpm(root: Path) -> dict[str, float]:
    found = {}
    for chip in boards.fan_chips(root):
        turns = number(chip / "fan1_input")
        if turns is None:
            turns = number(chip / "rpm")  # the Jetson's tachometer
        if turns is not None:
            found[text(chip / "name") or chip.name] = float(turns)
    return found
