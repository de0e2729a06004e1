"""Made-up machines below a folder, and one that warms up under load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgecv.measure.tools import Tools

THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
PMIC = """   3V3_SYS_A current(1)=0.10000000A
   VDD_CORE_A current(7)=2.00000000A
   3V3_SYS_V volt(9)=3.30000000V
  VDD_CORE_V volt(15)=0.90000000V
     EXT5V_V volt(24)=5.10000000V
      BATT_V volt(25)=0.00600000V
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def orin_nano(root: Path, *, total_ma: int = 1400) -> None:
    """A Jetson Orin Nano: one INA3221 with the module's input."""
    chip = "sys/class/hwmon/hwmon1"
    write(
        root,
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\x00",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48125\n",
            "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
            "sys/class/thermal/cooling_device0/cur_state": "1\n",
            "sys/class/thermal/cooling_device0/max_state": "4\n",
            "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert\n",
            "sys/class/thermal/cooling_device1/cur_state": "0\n",
            "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
            "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
            "sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000\n",
            "sys/class/hwmon/hwmon0/name": "tachometer\n",
            "sys/class/hwmon/hwmon0/rpm": "2810\n",
            f"{chip}/name": "ina3221\n",
            f"{chip}/in1_label": "VDD_IN\n",
            f"{chip}/in1_input": "5000\n",
            f"{chip}/curr1_input": f"{total_ma}\n",
            f"{chip}/in2_label": "VDD_CPU_GPU_CV\n",
            f"{chip}/in2_input": "5000\n",
            f"{chip}/curr2_input": "400\n",
            f"{chip}/in3_label": "VDD_SOC\n",
            f"{chip}/in3_input": "5000\n",
            f"{chip}/curr3_input": "300\n",
            f"{chip}/in7_label": "sum of shunt voltages\n",
            f"{chip}/in7_input": "12\n",
            "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nX 1\n< POWER_MODEL ID=1 NAME=7W >\n",
        },
    )


def agx_orin(root: Path) -> None:
    """A Jetson AGX Orin: two INA3221, no input rail; the memory's rail is a branch of the 5 V rail."""
    rails = {"hwmon3": ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], "hwmon4": ["NC", "VDDQ_VDD2_1V8AO", "NC"]}
    for chip, labels in rails.items():
        write(root, {f"sys/class/hwmon/{chip}/name": "ina3221\n"})
        for channel, label in enumerate(labels, start=1):
            values = {"label": label, "input": "5000"}
            write(root, {f"sys/class/hwmon/{chip}/in{channel}_{name}": text for name, text in values.items()})
            write(root, {f"sys/class/hwmon/{chip}/curr{channel}_input": str(200 * channel)})


def jetpack4(root: Path) -> None:
    """A Jetson Nano with JetPack 4: the iio layout, in milliwatts."""
    chip = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    for channel, (label, milliwatts) in enumerate({"POM_5V_IN": 3100, "POM_5V_GPU": 900, "POM_5V_CPU": 700}.items()):
        write(root, {f"{chip}/rail_name_{channel}": label, f"{chip}/in_power{channel}_input": str(milliwatts)})


def intel(root: Path, *, microjoules: int = 1_000_000, most: int = 262_143_328_850) -> None:
    """An x86 machine with RAPL: one package with sub-zones, and the platform's own zone."""
    zones = {
        "intel-rapl:0": ("package-0", microjoules),
        "intel-rapl:0:0": ("core", microjoules // 2),
        "intel-rapl:0:1": ("uncore", 5),
        "intel-rapl:1": ("psys", 7),
    }
    for folder, (name, count) in zones.items():
        base = f"sys/class/powercap/{folder}"
        write(root, {f"{base}/name": name, f"{base}/energy_uj": f"{count}\n", f"{base}/max_energy_range_uj": f"{most}"})


def tools(answers: dict[tuple[str, ...], str], *, clock: object = None) -> Tools:
    """Tools that know only these answers."""

    def run(words: Sequence[str]) -> str:
        return answers.get(tuple(words), "")

    return Tools(run) if clock is None else Tools(run, clock=clock)  # type: ignore[arg-type]


@dataclass
class WarmBoard:
    """A Raspberry Pi without a fan: one thermal mass, throttled at 80 degrees until it is 5 degrees below.

    `advance` moves its clock on and keeps its sysfs; a watt above idle heats. `clock` and `sleep` are for a `Timer`.
    """

    root: Path
    frame_s: float = 0.1
    idle_w: float = 3.0
    busy_w: float = 8.0
    limit_c: float = 80.0
    now_s: float = 0.0
    temperature_c: float = 45.0
    throttled: bool = False
    busy: bool = False
    _written_s: float = -1.0
    _kept: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        write(self.root, {"proc/device-tree/model": "Raspberry Pi 4 Model B\x00"})
        write(
            self.root, {"sys/class/thermal/thermal_zone0/type": "cpu-thermal", "sys/class/hwmon/hwmon0/name": "ina219"}
        )
        self._write()

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.busy = False
        self.advance(seconds)

    def run(self) -> None:
        """One frame on the engine: slower where the clock is down."""
        self.busy = True
        self.advance(self.frame_s / (0.55 if self.throttled else 1.0))

    def watts(self) -> float:
        return (self.busy_w * (0.7 if self.throttled else 1.0)) if self.busy else self.idle_w

    def advance(self, seconds: float) -> None:
        flow = self.watts() - (self.temperature_c - 30.0) / 8.0
        self.temperature_c += flow / 12.0 * seconds
        self.throttled = self.temperature_c >= self.limit_c - (5 if self.throttled else 0)
        self.now_s += seconds
        if self.now_s - self._written_s >= 0.5:
            self._write()

    def _write(self) -> None:
        self._written_s = self.now_s
        now = {
            "sys/class/thermal/thermal_zone0/temp": str(round(self.temperature_c * 1000)),
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "825000" if self.throttled else "1500000",
            THROTTLED: "60006" if self.throttled else "0",
            "sys/class/hwmon/hwmon0/power1_input": str(round(self.watts() * 1e6)),
        }
        write(self.root, {name: text for name, text in now.items() if self._kept.get(name) != text})
        self._kept = now
