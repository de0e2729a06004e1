"""Deformable attention in operators that every engine has: no grid_sample, no tensor of more than five axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["DeformableAttention", "is_one"]


class DeformableAttention(nn.Module):
    """Each query looks at a few places of every map (X. Zhu et al., "Deformable DETR", arXiv:2010.04159, section 4.1).

    ``heads`` times levels times ``points`` places for each query; ``maps`` are the height and width of each level in
    cells. ``given`` holds the layers: ``value_proj`` and ``output_proj`` are Linear(d, d), ``sampling_offsets``
    Linear(d, heads * levels * points * 2), ``attention_weights`` Linear(d, heads * levels * points). Offsets count in
    ``scale / points`` of the size of a query's box.
    """

    def __init__(
        self, given: nn.Module, *, maps: Sequence[tuple[int, int]], heads: int, points: int, scale: float
    ) -> None:
        super().__init__()
        self.sampling_offsets = given.get_submodule("sampling_offsets")
        self.attention_weights = given.get_submodule("attention_weights")
        self.value_proj = given.get_submodule("value_proj")
        self.output_proj = given.get_submodule("output_proj")
        self.heads, self.points, self.scale = heads, points, scale
        starts = [sum(high * wide for high, wide in maps[:index]) for index in range(len(maps))]
        numbers = {"high": [high for high, _ in maps], "wide": [wide for _, wide in maps], "start": starts}
        for name, values in numbers.items():
            spots = torch.tensor([value for value in values for _ in range(points)], dtype=torch.int32)
            self.register_buffer(name, spots, persistent=False)
        self.register_buffer("head", torch.arange(heads, dtype=torch.int32).view(1, 1, heads, 1), persistent=False)
        for name in ("high", "wide"):
            self.register_buffer(f"{name}_cells", self.get_buffer(name).float(), persistent=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        *,
        position_embeddings: torch.Tensor,
        reference_points: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        """Queries `(N, Q, d)` with their positions, boxes `(N, Q, 4)` (centre and size in shares), cells `(N, L, d)`.

        Returns `(N, Q, d)`, and None where the layers of transformers look for weights. ``others`` (masks, sizes as
        tensors) are not needed.
        """
        queries, places, memory = hidden_states + position_embeddings, reference_points, encoder_hidden_states
        count, asked = queries.shape[:2]
        spots = len(self.get_buffer("wide"))
        offsets = self.sampling_offsets(queries).view(count, asked, self.heads * spots, 2)
        shares = self.attention_weights(queries).view(count, asked, self.heads, spots).softmax(-1)
        steps = offsets * (self.scale / self.points)
        x = (places[..., 0:1] + steps[..., 0] * places[..., 2:3]).view(count, asked, self.heads, spots)
        y = (places[..., 1:2] + steps[..., 1] * places[..., 3:4]).view(count, asked, self.heads, spots)
        values = self.value_proj(memory).view(count, memory.shape[1], self.heads, -1)
        return self.output_proj(self.sample(values, x, y, shares)), None

    def sample(self, values: torch.Tensor, x: torch.Tensor, y: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """The sum of bilinear samples of cells `(N, L, heads, d)` at ``x`` and ``y``, weighted with ``shares``.

        All three are `(N, Q, heads, levels * points)`; places count in shares of a map's sides, and what lies outside
        is zero, as `grid_sample` with ``align_corners=False`` has it. Returns `(N, Q, heads * d)`.
        """
        count, cells, heads, width = values.shape
        asked, spots = x.shape[1], x.shape[3]
        wide, high = self.get_buffer("wide_cells"), self.get_buffer("high_cells")
        left, right_share = _split(x, wide)
        top, low_share = _split(y, high)
        start = self.get_buffer("start")
        if not is_one(count):
            start = start + (torch.arange(count, dtype=torch.int32, device=start.device) * cells).view(count, 1, 1, 1)
        rows, weights = [], []
        for down in (0, 1):
            for right in (0, 1):
                column, column_share = _corner(left, right_share, wide, step=right)
                row, row_share = _corner(top, low_share, high, step=down)
                # Whole numbers: row numbers need more digits than half floats have.
                cell = row.to(torch.int32) * self.get_buffer("wide") + column.to(torch.int32) + start
                rows.append(cell * heads + self.get_buffer("head"))
                weights.append(shares * column_share * row_share)
        table = values.reshape(count * cells * heads, width)
        taken = functional.embedding(torch.cat(rows, dim=3).reshape(-1), table)
        stacked = taken.view(count * asked * heads, 4 * spots, width)
        summed = torch.bmm(torch.cat(weights, dim=3).view(count * asked * heads, 1, 4 * spots), stacked)
        return summed.view(count, asked, heads * width)


def is_one(count: int) -> bool:
    """Whether a batch holds one picture; a length that a graph leaves open (a symbol) is never asked for its value."""
    return isinstance(count, int) and count == 1


def _split(shares: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cell before each place, and how far the place lies from its centre to the next one's (0..1)."""
    places = torch.minimum((shares * cells - 0.5).clamp_min(-2.0), cells + 1.0)
    before = places.floor()
    return before, places - before


def _corner(
    before: torch.Tensor, share: torch.Tensor, cells: torch.Tensor, *, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cell number, within the map, and weight of the neighbour before (0) or behind (1); 0 outside of the map."""
    cell = before + step
    inside = (cell + 1.0).clamp(0.0, 1.0) * (cells - cell).clamp(0.0, 1.0)
    weight = share if step else 1.0 - share
    return torch.minimum(cell.clamp_min(0.0), cells - 1.0), weight * inside
