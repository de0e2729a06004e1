"""Which sensor a board offers, what it covers, and its watts; read from made-up sysfs trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.measure.power import RaplSensor, find_power, pmic_rails
from tests.measure.boards import PMIC, agx_orin, intel, jetpack4, orin_nano, tools, write

COUNTER = "sys/class/powercap/intel-rapl:0/energy_uj"


def test_orin_nano_has_one_total(tmp_path: Path) -> None:
    orin_nano(tmp_path)
    sensor, notes = find_power(tmp_path)
    assert sensor is not None
    assert sensor.name == "INA3221 VDD_IN"
    assert "module" in sensor.covers
    found = sensor.read()
    assert found is not None
    assert found.watts == pytest.approx(7.0)
    assert found.rails_w == pytest.approx({"VDD_IN": 7.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.5})
    assert notes == ()


def test_a_chip_that_multiplies_itself_is_believed(tmp_path: Path) -> None:
    orin_nano(tmp_path)
    write(tmp_path, {"sys/class/hwmon/hwmon1/power1_input": "7250000"})
    sensor, _ = find_power(tmp_path)
    assert sensor is not None
    assert sensor.read().watts == pytest.approx(7.25)  # type: ignore[union-attr]


def test_agx_orin_adds_its_rails_up_but_not_a_branch_twice(tmp_path: Path) -> None:
    agx_orin(tmp_path)
    sensor, _ = find_power(tmp_path)
    assert sensor is not None
    assert sensor.name == "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    found = sensor.read()
    assert found is not None
    assert found.watts == pytest.approx(1.0 + 2.0 + 3.0)
    assert found.rails_w["VDDQ_VDD2_1V8AO"] == pytest.approx(2.0)
    assert "NC" not in found.rails_w


def test_jetpack_4(tmp_path: Path) -> None:
    jetpack4(tmp_path)
    sensor, _ = find_power(tmp_path)
    assert sensor is not None
    assert (sensor.name, sensor.read().watts) == ("INA3221 POM_5V_IN", 3.1)  # type: ignore[union-attr]


def test_a_total_that_stops_answering_gives_nothing(tmp_path: Path) -> None:
    orin_nano(tmp_path)
    sensor, _ = find_power(tmp_path)
    assert sensor is not None
    (tmp_path / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    assert sensor.read() is None, "the other rails are no total"


def test_rapl_counts_packages_alone(tmp_path: Path) -> None:
    intel(tmp_path)
    sensor, notes = find_power(tmp_path)
    assert sensor is not None
    assert (sensor.name, notes) == ("RAPL package-0", ())
    assert sensor.read().joules == 0.0  # type: ignore[union-attr]
    write(tmp_path, {COUNTER: "3500000"})
    found = sensor.read()
    assert found is not None
    assert found.joules == pytest.approx(2.5)
    assert found.watts is None


def test_rapl_goes_on_where_the_counter_wraps(tmp_path: Path) -> None:
    intel(tmp_path, microjoules=9_000_000, most=10_000_000)
    sensor, _ = find_power(tmp_path)
    assert sensor is not None
    told = []
    for count in (9_000_000, 9_900_000, 400_000, 9_400_000, 100_000):
        write(tmp_path, {COUNTER: str(count)})
        told.append(sensor.read().joules)  # type: ignore[union-attr]
    assert told == pytest.approx([0.0, 0.9, 1.4, 10.4, 11.1])


def test_two_packages_wrap_each_for_itself(tmp_path: Path) -> None:
    zones = []
    for number in (0, 1):
        zone = f"sys/class/powercap/intel-rapl:{number}"
        write(tmp_path, {f"{zone}/name": f"package-{number}", f"{zone}/max_energy_range_uj": "1000000"})
        zones.append(tmp_path / zone)
    sensor = RaplSensor(tuple(zones))
    for first, second in (("900000", "100000"), ("100000", "300000")):
        (zones[0] / "energy_uj").write_text(first)
        (zones[1] / "energy_uj").write_text(second)
        found = sensor.read()
    assert found is not None
    assert found.joules == pytest.approx(0.2 + 0.2)


def test_rapl_that_only_root_may_read_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    intel(tmp_path)
    real = Path.read_text

    def refused(path: Path, *arguments: object, **named: object) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refused)
    sensor, notes = find_power(tmp_path)
    assert sensor is None
    assert len(notes) == 1
    assert "only root may read it" in notes[0]


def test_pmic_rails_are_amperes_times_volts() -> None:
    assert pmic_rails(PMIC) == pytest.approx({"3V3_SYS": 0.33, "VDD_CORE": 1.8})
    assert pmic_rails('error=2 error_msg="Invalid arguments"') == {}


def test_raspberry_pi_5_says_that_it_is_not_the_wall(tmp_path: Path) -> None:
    sensor, _ = find_power(tmp_path, tools({("vcgencmd", "pmic_read_adc"): PMIC}))
    assert sensor is not None
    assert "PMIC" in sensor.name
    assert "not the wall" in sensor.covers
    assert sensor.every_s >= 1.0
    assert sensor.read().watts == pytest.approx(2.13)  # type: ignore[union-attr]


def test_raspberry_pi_4_has_none(tmp_path: Path) -> None:
    answers = {("vcgencmd", "pmic_read_adc"): 'error=1 error_msg="Command not registered"'}
    assert find_power(tmp_path, tools(answers)) == (None, ())


@pytest.mark.parametrize(
    ("chip", "file", "name"),
    [
        ("ina226", "power1_input", "hwmon ina226 power1_input"),
        ("amdgpu", "power1_average", "hwmon amdgpu power1_average"),
    ],
)
def test_other_chips(tmp_path: Path, chip: str, file: str, name: str) -> None:
    write(tmp_path, {"sys/class/hwmon/hwmon3/name": chip, f"sys/class/hwmon/hwmon3/{file}": "6125000"})
    sensor, _ = find_power(tmp_path)
    assert sensor is not None
    assert (sensor.name, sensor.read().watts) == (name, 6.125)  # type: ignore[union-attr]
    assert chip in sensor.covers


def test_a_meter_of_the_supply_comes_before_the_package_and_graphics_after(tmp_path: Path) -> None:
    intel(tmp_path)
    write(tmp_path, {"sys/class/hwmon/hwmon3/name": "amdgpu", "sys/class/hwmon/hwmon3/power1_average": "9000000"})
    assert find_power(tmp_path)[0].name == "RAPL package-0"  # type: ignore[union-attr]
    write(tmp_path, {"sys/class/hwmon/hwmon9/name": "ina260", "sys/class/hwmon/hwmon9/power1_input": "5000000"})
    assert find_power(tmp_path)[0].name == "hwmon ina260 power1_input"  # type: ignore[union-attr]


def test_an_empty_machine_has_none(tmp_path: Path) -> None:
    assert find_power(tmp_path) == (None, ())
