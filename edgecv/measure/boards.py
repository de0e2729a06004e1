"""What only one maker's boards tell: the Raspberry Pi's firmware word, the Jetson's power mode."""

from __future__ import annotations

import re
from pathlib import Path

from edgecv.measure.sysfs import numbered, text
from edgecv.measure.tools import Tools

_RASPBERRY_BITS = {
    0: "under-voltage",
    1: "the processor's clock was capped",
    2: "throttled",
    3: "the soft temperature limit was reached",
}
_SINCE_BOOT = 16  # the same four again, for "has happened since boot"
_RASPBERRY_PATHS = (
    "sys/devices/platform/soc/soc:firmware/get_throttled",
    "sys/devices/platform/soc*/*firmware/get_throttled",
)
_MODE_NAME = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)")


def raspberry_word(root: Path, tools: Tools | None) -> int | None:
    """The firmware's throttle word, from sysfs or from ``vcgencmd get_throttled``; None on other boards.

    Bits 0 to 3 say what holds the board back now, bits 16 to 19 what has since boot.
    """
    said = [text(path) for pattern in _RASPBERRY_PATHS for path in sorted(root.glob(pattern))]
    if tools is not None and not any(said):
        said.append(tools.ask("vcgencmd", "get_throttled").removeprefix("throttled="))
    words = [int(word, 16) for word in said if re.fullmatch("(0x)?[0-9a-fA-F]+", word)]
    return words[0] if words else None


def raspberry_flags(word: int) -> list[str]:
    """What holds the board back now."""
    return [_flag(name) for bit, name in _RASPBERRY_BITS.items() if word >> bit & 1]


def raspberry_records(word: int) -> dict[str, int]:
    """What has happened since boot (1) and what has not (0), under the names of `raspberry_flags`.

    A drop of the supply that is over within a second is seen here alone.
    """
    return {_flag(name): word >> (bit + _SINCE_BOOT) & 1 for bit, name in _RASPBERRY_BITS.items()}


def raspberry_temperature_c(tools: Tools | None) -> float | None:
    """The chip's temperature by ``vcgencmd measure_temp``, for systems without a thermal zone."""
    answer = tools.ask("vcgencmd", "measure_temp") if tools is not None else ""
    found = re.search(r"temp=(-?[0-9.]+)", answer)
    return float(found[1]) if found else None


def power_mode(root: Path, tools: Tools | None) -> str:
    """The Jetson's power mode (nvpmodel), such as ``MAXN`` or ``15W``; "" on other boards."""
    mode = re.search(r"pmode:0*(\d+)", text(root / "var/lib/nvpmodel/status"))
    if mode:
        names: dict[str, str] = dict(_MODE_NAME.findall(text(root / "etc/nvpmodel.conf")))
        return names.get(mode[1], f"mode {mode[1]}")
    answer = tools.ask("nvpmodel", "-q") if tools is not None else ""
    found = re.search(r"NV Power Mode:\s*(\S+)", answer)
    return found[1] if found else ""


def fan_chips(root: Path) -> list[Path]:
    """The hwmon folders that have a fan."""
    chips = numbered(root, "sys/class/hwmon/hwmon*")
    return [chip for chip in chips if any((chip / name).exists() for name in ("pwm1", "fan1_input", "rpm"))]


def _flag(name: str) -> str:
    return f"Raspberry Pi firmware: {name}"
