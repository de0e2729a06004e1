"""What each place of good pictures looks like, as one Gaussian a place, and how far a picture is from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional

from edgecv.errors import ModelError
from edgecv.models.memory_bank import bounded

__all__ = ["PatchGaussians"]

_RIDGE = 0.1
_BLUR = (1.0, 4.0, 6.0, 4.0, 1.0)


class PatchGaussians(nn.Module):
    """Mahalanobis distance of each place to the good ones there: maps of a few stages -> `(N, 1, 2 h, 2 w)`.

    The maps are brought to ``grid`` `(h, w)` (means of cells where they are larger) and ``kept`` of their channels
    taken at random; each place has a mean m and a covariance S over good pictures (Defard et al., PaDiM,
    arXiv:2011.08785). With S^-1 = W' W the distance |W (x - m)| is one product of matrices a place and a sum of
    squares. It is enlarged twice, blurred, multiplied by ``scale`` and brought to 0 to 1 as x / (1 + x).

    S has a share of its mean variance on the diagonal, where the paper has 0.01: features here have no fixed size, and
    directions in which good pictures hardly differ would make int8 noise as loud as defects.
    """

    picked: torch.Tensor
    mean: torch.Tensor
    whiten: torch.Tensor
    blur: torch.Tensor
    scale: torch.Tensor

    def __init__(self, channels: int, *, kept: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if not 1 <= kept <= channels or min(grid) < 1:
            raise ModelError(
                f"kept is {kept} and grid {list(grid)}; the stages have {channels} channels, so kept must be 1 to "
                f"{channels}, and grid two whole numbers of at least 1, such as [32, 32]"
            )
        self.kept, self.grid = kept, grid
        line, places = torch.tensor(_BLUR) / sum(_BLUR), grid[0] * grid[1]
        self.register_buffer("picked", torch.eye(kept, channels)[:, :, None, None])
        self.register_buffer("mean", torch.zeros(1, kept, *grid))
        self.register_buffer("whiten", torch.eye(kept).repeat(places, 1, 1))
        self.register_buffer("blur", (line[:, None] * line)[None, None], persistent=False)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, *stages: torch.Tensor) -> torch.Tensor:
        away = (self._places(stages) - self.mean).flatten(2).permute(2, 1, 0)
        white = torch.matmul(self.whiten, away)
        squared = (white * white).sum(dim=1).transpose(0, 1).reshape(-1, 1, *self.grid).clamp(min=1e-6)
        wide = functional.interpolate(torch.sqrt(squared), scale_factor=2.0, mode="bilinear", align_corners=False)
        found = functional.conv2d(wide, self.blur, padding=2) * self.scale
        return bounded(found)

    def fill(self, passes: Callable[[], Iterator[tuple[torch.Tensor, ...]]], *, seed: int) -> None:
        """Learn each place's Gaussian from the stages `(N, C, h, w)` that one of ``passes`` gives.

        Raises:
            ModelError: there are fewer than two pictures.
        """
        random = torch.Generator().manual_seed(seed)
        total = self.picked.shape[1]
        chosen = torch.randperm(total, generator=random)[: self.kept].sort().values
        self.picked.copy_(torch.eye(total)[chosen][:, :, None, None])
        count = 0
        sums = torch.zeros(self.whiten.shape[0], self.kept, dtype=torch.float64)
        products = torch.zeros(self.whiten.shape, dtype=torch.float64)
        for stages in passes():
            rows = self._places(stages).flatten(2).permute(2, 0, 1).double()
            count += rows.shape[1]
            sums += rows.sum(dim=1)
            products += rows.transpose(1, 2) @ rows
        if count < 2:
            raise ModelError(f"there are {count} good pictures; Gaussians need 2 or more, and some 100 to be any good")
        mean = sums / count
        spread = (products - count * mean[:, :, None] * mean[:, None, :]) / (count - 1)
        usual = spread.diagonal(dim1=1, dim2=2).mean().clamp(min=1e-12)
        spread += _RIDGE * usual * torch.eye(self.kept, dtype=torch.float64)
        lower = torch.linalg.cholesky(spread)
        one = torch.eye(self.kept, dtype=torch.float64).expand_as(lower)
        self.whiten.copy_(torch.linalg.solve_triangular(lower, one, upper=False))
        self.mean.copy_(mean.transpose(0, 1).reshape(self.mean.shape))

    def _places(self, stages: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The taken channels of all stages at the size of the grid, `(N, kept, h, w)`."""
        return functional.conv2d(torch.cat([self._fitted(stage) for stage in stages], dim=1), self.picked)

    def _fitted(self, stage: torch.Tensor) -> torch.Tensor:
        """One stage at the size of the grid.

        Cells are averaged by a convolution, because engines average int8 numbers in int8 (`MemoryBank`).
        """
        (high, wide), (rows, columns) = stage.shape[-2:], self.grid
        if high <= rows and wide <= columns:
            return functional.interpolate(stage, size=self.grid, mode="bilinear", align_corners=False)
        if high % rows or wide % columns:
            raise ModelError(
                f"a stage of {high} x {wide} does not divide into a grid of {rows} x {columns}; choose option grid so "
                "that it does"
            )
        cell = (high // rows, wide // columns)
        weight = stage.new_full((stage.shape[1], 1, *cell), 1.0 / (cell[0] * cell[1]))
        return functional.conv2d(stage, weight, stride=cell, groups=stage.shape[1])
