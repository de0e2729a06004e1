"""The target: where an artifact will run. One YAML file a board in ``targets/``; facts, no code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from edgecv.core.contract import FORBID_UNKNOWN

Precision = Literal["fp32", "fp16", "int8"]
BackendName = Literal["onnxruntime", "openvino", "litert", "coreml", "tensorrt", "null"]


@dataclass(frozen=True)
class ThermalZone:
    """A temperature sensor of the board: its sysfs type, and the limits in degrees Celsius."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    name: str = field(metadata={"description": "type as in /sys/class/thermal/*/type"})
    throttle_c: float | None = field(default=None, metadata={"description": "clocks go down from here"})
    shutdown_c: float | None = field(default=None, metadata={"description": "the board turns itself off"})


@dataclass(frozen=True)
class PowerMode:
    """A power mode of the board (nvpmodel on Jetson)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    name: str
    watts: float | None = None
    id: int | None = None


@dataclass(frozen=True)
class Target:
    """A board and the engine that serves it.

    Where the engine also runs on the build machine, the artifact's accuracy is measured there; times
    taken there are of that machine and never printed as the board's own (``arch: host`` means that
    this machine is the target).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    target: Literal[1] = field(metadata={"description": "version of the target format"})
    name: str = field(metadata={"pattern": r"^[a-z0-9][a-z0-9-]{0,63}$", "description": "same as the file's name"})
    title: str = field(metadata={"description": "what people call it"})
    backend: BackendName = field(metadata={"description": "engine that compiles and runs for it"})
    arch: Literal["host", "x86_64", "aarch64", "arm64-apple"] = field(metadata={"description": "processor"})
    precisions: tuple[Precision, ...] = field(metadata={"description": "what the engine runs faster than float there"})
    sources: tuple[str, ...] = field(metadata={"description": "where the facts in this file were taken from"})
    soc: str = field(default="", metadata={"description": "system on chip"})
    accelerator: str = field(default="", metadata={"description": "GPU or NPU, with its peak figure"})
    memory_mb: int | None = field(default=None, metadata={"ge": 1, "description": "smallest memory it is sold with"})
    threads: int | None = field(default=None, metadata={"ge": 1, "description": "CPU threads of the engine"})
    engine_options: dict[str, Any] = field(default_factory=dict, metadata={"description": "options of the backend"})
    power_modes: tuple[PowerMode, ...] = field(default=(), metadata={"description": "power modes"})
    thermal_zones: tuple[ThermalZone, ...] = field(default=(), metadata={"description": "temperature sensors"})
    round_channels_to: int = field(default=8, metadata={"ge": 1, "description": "channel multiple the engine likes"})
    notes: str = field(default="", metadata={"description": "what a user should know"})
