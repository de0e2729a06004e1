"""Facts and throttling, read from a made-up procfs and sysfs."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from edgecv.core.target import ThermalZone
from edgecv.measure.host import MAX_EVENTS, Sampler, machine_facts, peak_rss_mb
from edgecv.measure.sensors import read_machine
from tests.measure.boards import THROTTLED, orin_nano, tools, write

MEMINFO = "MemTotal:        8000000 kB\nMemFree:  1 kB\n"


def sampler(root: Path, *zones: ThermalZone, load: float = 0.0) -> Sampler:
    return Sampler(zones=zones, root=root, load_average=lambda: (load, 0.0, 0.0))


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A Raspberry-Pi-like machine at rest."""
    write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nprocessor\t: 1\n",
            "proc/meminfo": MEMINFO,
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\x00",
            "proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "51500\n",
            "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
            "sys/class/thermal/thermal_zone0/trip_point_0_temp": "70000\n",
            "sys/class/thermal/thermal_zone0/trip_point_1_type": "passive\n",
            "sys/class/thermal/thermal_zone0/trip_point_1_temp": "85000\n",
            "sys/class/thermal/thermal_zone0/trip_point_2_type": "critical\n",
            "sys/class/thermal/thermal_zone0/trip_point_2_temp": "110000\n",
            "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
            "sys/class/thermal/cooling_device0/cur_state": "2\n",
            "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0\n",
            "sys/class/thermal/cooling_device1/cur_state": "0\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
            "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
            "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
        },
    )
    return tmp_path


def test_facts_of_a_board(board: Path) -> None:
    facts = machine_facts({"onnxruntime": "1.31.1"}, root=board)
    assert facts.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert facts.cpu == "Arm implementer 0x41 part 0xd0b"
    assert facts.memory_mb == 8192
    assert facts.engines == {"onnxruntime": "1.31.1"}
    assert facts.cores >= 1
    assert facts.python == platform.python_version()
    assert facts.machine == platform.machine()
    assert facts.power_mode == ""


def test_facts_of_a_jetson_name_its_power_mode(tmp_path: Path) -> None:
    orin_nano(tmp_path)
    assert machine_facts({}, root=tmp_path).power_mode == "7W"


def test_facts_of_a_pc(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor : 0\nmodel name : Quick CPU @ 3 GHz: x\n", "proc/meminfo": MEMINFO})
    facts = machine_facts({}, root=tmp_path)
    assert facts.cpu == "Quick CPU @ 3 GHz: x"
    assert facts.board == ""


def test_facts_of_this_machine() -> None:
    facts = machine_facts({})
    assert facts.system.startswith(platform.system())
    assert facts.cpu
    assert facts.memory_mb > 100


def test_peak_memory() -> None:
    code = (
        "from edgecv.measure.host import peak_rss_mb; before = peak_rss_mb(); block = bytearray(300_000_000); "
        "del block; print(before, peak_rss_mb())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    before, after = (float(value) for value in told)
    assert 5 < before < 250
    assert 250 < after - before < 320


def test_peak_memory_without_procfs(tmp_path: Path) -> None:
    found = peak_rss_mb(root=tmp_path)
    assert found is not None
    assert found > 10


def test_readings(board: Path) -> None:
    found = read_machine(board)
    assert found.temperature_c == {"cpu-thermal": 51.5}
    assert found.clock_mhz == {"cpu0": 2400.0, "cpu1": 1500.0}
    assert found.counters == {
        "rpi_volt under-voltage alarm": 0,
        "Raspberry Pi firmware: under-voltage": 1,
        "Raspberry Pi firmware: the processor's clock was capped": 0,
        "Raspberry Pi firmware: throttled": 1,
        "Raspberry Pi firmware: the soft temperature limit was reached": 0,
    }
    assert found.flags == ()  # a running fan and troubles before this measurement do not count


def test_empty_machine(tmp_path: Path) -> None:
    found = read_machine(tmp_path)
    assert (found.temperature_c, found.clock_mhz, found.counters, found.flags) == ({}, {}, {}, ())
    watch = sampler(tmp_path)
    watch.sample()
    watch.sample()
    assert watch.invalid == ""
    assert watch.notes == ()
    assert watch.clock_range_mhz is None


def test_broken_sensors_are_left_out(board: Path) -> None:
    (board / "sys/class/thermal/thermal_zone0/temp").write_text("not a number")
    write(board, {"sys/devices/platform/soc/soc:firmware/get_throttled": "?"})
    found = read_machine(board)
    assert found.temperature_c == {}
    assert found.flags == ()


def test_quiet_measurement_is_valid(board: Path) -> None:
    watch = sampler(board, ThermalZone("cpu-thermal", throttle_c=80.0))
    watch.sample()
    write(
        board,
        {
            "sys/class/thermal/thermal_zone0/temp": "71000",  # above the trip that only arms the governor
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "600000",
        },
    )
    watch.sample()
    write(board, {"sys/class/thermal/thermal_zone0/temp": "60000"})
    watch.sample()
    assert watch.invalid == ""
    assert watch.max_temperature_c == {"cpu-thermal": 71.0}
    assert watch.clock_range_mhz == (600.0, 2400.0)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "50001", "Raspberry Pi firmware: under-voltage"),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "0x50004", "firmware: throttled"),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "2", "clock was capped"),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "8", "soft temperature limit"),
        ("sys/class/thermal/cooling_device1/cur_state", "3", "cooling device cpufreq-cpu0 was active"),
        ("sys/class/thermal/thermal_zone0/temp", "85000", "passive trip point of 85 degrees"),
        ("sys/class/thermal/thermal_zone0/temp", "80000", "cpu-thermal reached its throttle limit of 80 degrees"),
        ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1", "rpi_volt under-voltage alarm rose"),
    ],
)
def test_what_makes_a_measurement_invalid(board: Path, file: str, text: str, says: str) -> None:
    watch = sampler(board, ThermalZone("cpu-thermal", throttle_c=80.0), ThermalZone("absent", throttle_c=1.0))
    watch.sample()
    assert watch.invalid == ""
    kept = (board / file).read_text()
    write(board, {file: text})
    watch.sample()
    write(board, {file: kept})
    watch.sample()  # the trouble is over, the times stay spoiled
    assert says in watch.invalid


@pytest.mark.parametrize(
    "counter",
    ["sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "sys/class/hwmon/hwmon4/oc2_event_cnt"],
)
def test_counters_count_from_the_first_look(board: Path, counter: str) -> None:
    write(board, {counter: "7"})
    watch = sampler(board)
    watch.sample()
    watch.sample()
    assert watch.invalid == ""
    write(board, {counter: "8"})
    watch.sample()
    assert f"throttled: {counter} rose" in watch.invalid


def test_hidden_firmware_path_of_newer_boards(tmp_path: Path) -> None:
    write(tmp_path, {"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "1"})
    assert read_machine(tmp_path).flags == ("Raspberry Pi firmware: under-voltage",)


def test_other_load_is_noted_not_punished(board: Path) -> None:
    watch = sampler(board, load=1000.0)
    watch.sample()
    write(board, {"proc/stat": "cpu  150 0 100 830 0 0 0 20 0 0\n"})
    watch.sample()
    assert watch.invalid == ""
    busy, steal = watch.notes
    assert "load average 1000.0" in busy
    assert steal == "the hypervisor took 20% of the processor time"


def test_this_machine_can_be_sampled() -> None:
    watch = Sampler()
    watch.sample()
    assert isinstance(watch.invalid, str)


def test_events_have_their_time_and_their_end(board: Path) -> None:
    now = [100.0]
    watch = Sampler(root=board, load_average=lambda: (0.0, 0.0, 0.0), clock=lambda: now[0])
    for second, word in enumerate(("50000", "50000", "50005", "50004", "50000")):
        now[0] = 100.0 + second
        write(board, {THROTTLED: word})
        watch.sample()
    told = [(event.at_s, event.kind, event.text.removeprefix("Raspberry Pi firmware: ")) for event in watch.events]
    assert told == [
        (2.0, "under-voltage", "under-voltage"),
        (2.0, "throttled", "throttled"),
        (3.0, "over", "under-voltage"),
        (4.0, "over", "throttled"),
    ]


def test_a_drop_between_two_looks_is_found_in_the_firmware_record(board: Path) -> None:
    write(board, {THROTTLED: "0"})
    watch = sampler(board)
    watch.sample()
    write(board, {THROTTLED: "10000"})  # it happened, and it is over
    assert watch.sample().flags == ("Raspberry Pi firmware: under-voltage",)
    assert watch.sample().flags == ()
    assert watch.invalid == "Raspberry Pi firmware: under-voltage"
    assert [event.kind for event in watch.events] == ["under-voltage", "over"]


def test_events_are_bounded(board: Path) -> None:
    watch = sampler(board)
    for look in range(2 * MAX_EVENTS):
        write(board, {THROTTLED: "4" if look % 2 else "0"})
        watch.sample()
    assert len(watch.events) == MAX_EVENTS


def test_a_board_without_sysfs_files_is_asked_by_its_own_program(tmp_path: Path) -> None:
    word = "throttled=0x50005"
    asked = tools({("vcgencmd", "get_throttled"): word, ("vcgencmd", "measure_temp"): "temp=51.5'C"})
    watch = Sampler(root=tmp_path, tools=asked, load_average=lambda: (0.0, 0.0, 0.0))
    assert watch.sample().temperature_c == {"vcgencmd": 51.5}
    assert watch.invalid == "Raspberry Pi firmware: under-voltage; Raspberry Pi firmware: throttled"
