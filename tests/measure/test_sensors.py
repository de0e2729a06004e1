"""Clocks, fans and cooling devices of made-up boards."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.measure.boards import power_mode, raspberry_word
from edgecv.measure.sensors import read_machine
from tests.measure.boards import orin_nano, tools, write


def test_a_jetson(tmp_path: Path) -> None:
    orin_nano(tmp_path)
    found = read_machine(tmp_path)
    assert found.temperature_c == {"cpu-thermal": 48.125}
    assert found.device_mhz == {"gpu": 624.75, "vic": 115.2, "emc": 2133.0}
    assert found.fans == {"pwm-fan": 0.25}
    assert found.fan_rpm == {"tachometer": 2810.0}
    assert found.flags == ()


@pytest.mark.parametrize(
    ("kind", "held"),
    [("gpu-throttle-alert", True), ("cpu-balanced", True), ("devfreq-17000000.gpu", True), ("pwm-fan", False)],
)
def test_cooling_devices_that_lower_clocks(tmp_path: Path, kind: str, held: bool) -> None:
    device = "sys/class/thermal/cooling_device11"
    write(tmp_path, {f"{device}/type": kind, f"{device}/cur_state": "1", f"{device}/max_state": "3"})
    assert bool(read_machine(tmp_path).flags) == held


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("17000000.ga10b", "gpu"),
        ("57000000.gpu", "gpu"),
        ("fb000000.gpu", "gpu"),
        ("31b0000.emc", "emc"),
        ("dmc", "emc"),
        ("15340000.vic", "vic"),
    ],
)
def test_devices_by_name(tmp_path: Path, folder: str, name: str) -> None:
    write(tmp_path, {f"sys/class/devfreq/{folder}/cur_freq": "500000000"})
    assert read_machine(tmp_path).device_mhz == {name: 500.0}


def test_intel_graphics(tmp_path: Path) -> None:
    write(tmp_path, {"sys/class/drm/card0/gt_act_freq_mhz": "750"})
    assert read_machine(tmp_path).device_mhz == {"gpu": 750.0}


def test_the_fan_of_a_raspberry_pi_5(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon2"
    write(tmp_path, {f"{chip}/name": "pwmfan", f"{chip}/pwm1": "51", f"{chip}/fan1_input": "3054"})
    found = read_machine(tmp_path)
    assert found.fans == {"pwmfan": 0.2}
    assert found.fan_rpm == {"pwmfan": 3054.0}


def test_the_power_mode_of_a_jetson(tmp_path: Path) -> None:
    orin_nano(tmp_path)
    assert power_mode(tmp_path, None) == "7W"
    (tmp_path / "etc/nvpmodel.conf").unlink()
    assert power_mode(tmp_path, None) == "mode 1"
    (tmp_path / "var/lib/nvpmodel/status").unlink()
    assert power_mode(tmp_path, None) == ""
    asked = tools({("nvpmodel", "-q"): "NV Fan Mode:quiet\nNV Power Mode: MAXN_SUPER\n2"})
    assert power_mode(tmp_path, asked) == "MAXN_SUPER"


@pytest.mark.parametrize(("answer", "word"), [("throttled=0x0", 0), ("throttled=0x50005", 0x50005), ("error=1", None)])
def test_the_word_by_vcgencmd(tmp_path: Path, answer: str, word: int | None) -> None:
    assert raspberry_word(tmp_path, tools({("vcgencmd", "get_throttled"): answer})) == word


def test_sysfs_is_asked_before_the_program(tmp_path: Path) -> None:
    write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "4"})
    assert raspberry_word(tmp_path, tools({("vcgencmd", "get_throttled"): "throttled=0x1"})) == 4
