"""What each layer of a network costs when it alone is int8: the rows of `edgecv analyze`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Sensitivity", "SensitivityRow"]


@dataclass(frozen=True)
class SensitivityRow:
    """One layer, or one int8 activation that belongs to none.

    ``sqnr_db`` is of the network's outputs against float where only this is int8 (of several outputs the worst;
    infinite where nothing changes). ``metric_drop`` is float minus this, None where no metric was asked for.
    ``latency_ms`` and ``latency_share`` (0..1 of all times given) are None where no time is known.
    """

    layer: str
    kind: str
    tensors: tuple[str, ...]
    sqnr_db: float
    metric_drop: float | None = None
    latency_ms: float | None = None
    latency_share: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """The table, worst signal to noise first, and the same figures of the whole int8 network."""

    rows: tuple[SensitivityRow, ...]
    pictures: int
    sqnr_db: float
    metric: str = ""
    float_value: float | None = None
    int8_value: float | None = None
