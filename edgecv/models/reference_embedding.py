"""Networks that turn a picture into a vector: a small one, and any backbone with a new last layer."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.recipe import ModelSpec
from edgecv.errors import ModelError
from edgecv.models.reference_pose import HalvingBlock, conv_norm

__all__ = ["embedder", "embedding_cnn"]


def embedding_cnn(*, dims: int = 32, widths: tuple[int, ...] = (12, 24, 32, 44), channels: int = 3) -> nn.Module:
    """`(N, channels, H, W)` float32 -> vectors `(N, dims)`, not yet of length 1 (the family sees to that).

    Residual blocks (He et al., arXiv:1512.03385) that halve the size down to the last of ``widths``, the mean over
    what is left, and a linear layer. As it is by default, it has 59,000 parameters.
    """
    blocks = OrderedDict[str, nn.Module](stem=conv_norm(channels, widths[0], stride=2))
    for index, (one, two) in enumerate(pairwise(widths), start=1):
        blocks[f"down{index}"] = HalvingBlock(one, two)
    blocks.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(widths[-1], dims))
    return nn.Sequential(blocks)


def embedder(*, backbone: str, dims: int = 128, height: int = 224, width: int = 224) -> nn.Module:
    """A classifier of torchvision or timm with a new last layer: pictures -> vectors `(N, dims)`.

    ``backbone`` is ``timm:NAME`` or ``torchvision:NAME``; its pooled features go through a new linear layer, as is
    usual in metric learning. Trained weights of the whole classifier fit: those of its own last layer are left out.

    Raises:
        ModelError: there is no such network, or it has no linear layer.
        ToolchainError: the library is not installed.
    """
    from edgecv.models.sources import build_module

    if backbone.partition(":")[0] not in ("timm", "torchvision"):
        raise ModelError(f"backbone is {backbone!r}; allowed are timm:NAME and torchvision:NAME")
    spec = ModelSpec(backbone, InputContract(size=(height, width)))
    network = build_module(spec, num_classes=None, base=Path())
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ModelError(f"{backbone} has no linear layer; an embedding needs a classifier that ends in one")
    name, last = layers[-1]
    network.set_submodule(name, nn.Linear(last.in_features, dims))
    return _Embedder(network, name)


class _Embedder(nn.Module):
    """The backbone, whose last layer is the new one, under the name that it had."""

    def __init__(self, backbone: nn.Module, head: str) -> None:
        super().__init__()
        self.backbone = backbone
        self._head = f"backbone.{head}."

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.backbone(inputs)

    def adapt_state(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights of the classifier that the backbone is, under the names that they have here; the new layer's own."""
        if any(key.startswith("backbone.") for key in state):
            return state
        named = {f"backbone.{key}": value for key, value in state.items()}
        ours = {key: value for key, value in self.state_dict().items() if key.startswith(self._head)}
        return {**named, **ours}
