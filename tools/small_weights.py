"""How the weights beside the recipes are stored: as float16, without the counters of batch norm."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import nn


def save_small(path: Path, module: nn.Module) -> None:
    """Write the weights of ``module``, which is left with what was written: it is judged as it is stored."""
    module.half().float()
    state = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in module.state_dict().items()
        if not name.endswith(".num_batches_tracked")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path))
