"""The calibration manifest: which pictures set the scales, with their hashes. No images, no code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from edgecv.core.contract import FORBID_UNKNOWN
from edgecv.core.recipe import DataSpec


@dataclass(frozen=True)
class CalibrationFile:
    """One picture: its id in the source's reader, and the hash that the reader gives for it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    id: str
    sha256: str = field(metadata={"pattern": "^[0-9a-f]{64}$"})


@dataclass(frozen=True)
class CalibrationManifest:
    """A calibration set as `edgecv calibrate` writes it into ``calibration/<name>.yaml``.

    ``coverage`` counts the pictures per class name. A relative ``source.path`` is relative to the
    manifest's own file.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    calibration: Literal[1] = field(metadata={"description": "version of the manifest format"})
    name: str = field(metadata={"pattern": r"^[a-z0-9][a-z0-9._-]{0,63}$", "description": "same as the file's name"})
    source: DataSpec = field(metadata={"description": "data set that the pictures are from"})
    licence: str = field(metadata={"description": "licence of the pictures"})
    select: Literal["random", "stratified", "k-center"] = field(metadata={"description": "selection rule"})
    seed: int = field(metadata={"ge": 0, "description": "seed of the selection"})
    coverage: dict[str, int] = field(metadata={"description": "pictures per class"})
    files: tuple[CalibrationFile, ...] = field(metadata={"min_length": 1, "description": "the pictures"})
