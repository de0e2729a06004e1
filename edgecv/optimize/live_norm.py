"""Batch norms that train: they come back into a folded graph, and fold again at the end.

What is rounded in training is the folded weight, as it will be deployed: the layer computes with the weight
times the norm's running factor, and the norm takes that factor out of the result before it normalises by
the batch (Jacob et al., arXiv:1712.05877, section 3.2). Once frozen, it only adds its offset, and the
graph computes what the folded one will (Krishnamoorthi, arXiv:1806.08342, section 3.2.2).

In a network that streams the graph runs once for each frame of the clips, and the first frames, which have no past,
differ from later ones. Normalised each by its own batch they would differ no more in training, but would when deployed.
So there the statistics follow the frames, and the running ones normalise: what trains is what is deployed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgecv.optimize.fold import FoldedNorm
from edgecv.optimize.graph import CONVOLUTIONS, LINEAR, finish, get_constant, replace_argument

__all__ = ["LiveNorm", "fold_live_norms", "restore_norms", "set_live", "share_of_run"]

_NAME = "live_norm"
_TINY = 1e-12
_MOMENTUM = 0.1
"""Where the norm gives none: torch's default."""


def share_of_run(share: float, runs: int) -> float:
    """The share (0..1) of each of ``runs`` in a moving average with which they weigh together what ``share`` is."""
    return 1.0 - (1.0 - share) ** (1.0 / runs)


class LiveNorm(nn.Module):
    """One batch norm beside its layer. ``live`` says whether it normalises by the batch and follows it; with
    ``frames`` > 1, the runs of a training step, it only follows.

    Called twice in a pass: with the layer's weight `(C, ...)` and ``of_weight``, and with its result `(N, C, ...)`.
    """

    mean: Tensor
    variance: Tensor
    epsilon: Tensor

    def __init__(self, folded: FoldedNorm, bias: Tensor, frames: int = 1) -> None:
        super().__init__()
        self.live = False
        self.by_batch = frames == 1
        self.momentum = share_of_run(folded.momentum or _MOMENTUM, frames)
        self.register_buffer("mean", folded.mean.clone())
        self.register_buffer("variance", folded.variance.clone())
        self.register_buffer("epsilon", folded.epsilon.clamp(min=_TINY))
        # The folded weight has the old factor in it, so that the new one starts at 1.
        self.gain = nn.Parameter((self.variance + self.epsilon).sqrt())
        self.offset = nn.Parameter((bias + self.mean).detach().clone())

    def factor(self) -> Tensor:
        """What the weight is multiplied by, `(C,)`."""
        return self.gain * torch.rsqrt(self.variance + self.epsilon)

    def bias(self) -> Tensor:
        """Bias of the layer with the norm folded in, `(C,)`."""
        mean = self.mean.clone()  # gradients of earlier frames read it, and the statistics move on
        return self.offset - mean * self.factor()

    def forward(self, values: Tensor, of_weight: bool = False) -> Tensor:
        if of_weight:
            return values * self.factor().reshape(-1, *[1] * (values.ndim - 1))
        shape = (1, -1, *[1] * (values.ndim - 2))
        if not self.live:
            return values + self.bias().reshape(shape)
        factor = self.factor()
        safe = torch.where(factor.abs() < _TINY, torch.full_like(factor, _TINY), factor)
        plain = values / safe.reshape(shape)
        axes = [axis for axis in range(values.ndim) if axis != 1]
        spread, center = torch.var_mean(plain, dim=axes, correction=0)
        if self.by_batch:
            scale = self.gain * torch.rsqrt(spread + self.epsilon)
            result = plain * scale.reshape(shape) + (self.offset - center * scale).reshape(shape)
        else:
            result = values + self.bias().reshape(shape)
        self._follow(center, spread, values.numel() // values.shape[1])
        return result

    @torch.no_grad()
    def _follow(self, center: Tensor, spread: Tensor, count: int) -> None:
        """Bring the statistics towards those of ``count`` values a channel."""
        center, spread = center.float(), spread.float() * (count / max(1, count - 1))
        if not self.by_batch:  # values of several frames lie as far apart as the frames' means as well
            spread = spread + (center - self.mean).square()
        self.mean.lerp_(center, self.momentum)
        self.variance.lerp_(spread, self.momentum)


def restore_norms(graph: GraphModule, folded: dict[str, FoldedNorm], *, frames: int = 1) -> int:
    """Put norms back beside the layers of a prepared graph that they were folded into; returns how many.

    ``folded`` is by node name, as `fold_batch_norms` leaves it; ``frames`` is how often the graph runs in a training
    step. Transposed convolutions stay folded.
    """
    restored = 0
    for layer in list(graph.graph.nodes):
        record = folded.get(layer.name)
        if record is None or layer.target not in (*CONVOLUTIONS, LINEAR) or len(layer.args) < 3:
            continue
        weight, bias = _constant_behind(layer.args[1]), layer.args[2]
        if weight is None or not isinstance(bias, Node) or bias.op != "get_attr":
            continue
        name = f"{_NAME}_{restored}"
        graph.add_submodule(name, LiveNorm(record, get_constant(graph, bias), frames))
        readers = list(weight.users)
        with graph.graph.inserting_after(weight):
            scaled = graph.graph.call_module(name, (weight, True))
        for reader in readers:
            reader.replace_input_with(weight, scaled)
        users = list(layer.users)
        with graph.graph.inserting_after(layer):
            normed = graph.graph.call_module(name, (layer,))
        for user in users:
            user.replace_input_with(layer, normed)
        for made, like in ((scaled, weight), (normed, layer)):
            made.meta = {key: value for key, value in like.meta.items() if key in ("val", "nn_module_stack")}
        layer.args = (*layer.args[:2], None, *layer.args[3:])
        restored += 1
    finish(graph)
    return restored


def set_live(graph: nn.Module, live: bool) -> None:
    """Let all norms of a graph follow the batch, or keep their statistics."""
    for part in graph.modules():
        if isinstance(part, LiveNorm):
            part.live = live


def fold_live_norms(graph: GraphModule) -> int:
    """Fold the norms of `restore_norms` for good: the graph computes the same as with frozen ones; returns how many."""
    norms = {name: part for name, part in graph.named_modules() if isinstance(part, LiveNorm)}
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or node.target not in norms:
            continue
        norm, source = norms[str(node.target)], node.args[0]
        assert isinstance(source, Node)
        with torch.no_grad():
            if source.op == "get_attr":  # the weight
                get_constant(graph, source).copy_(norm(get_constant(graph, source), of_weight=True))
            else:
                _set_bias(graph, source, norm.bias())
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
    finish(graph)
    return len(norms)


def _set_bias(graph: GraphModule, layer: Node, bias: Tensor) -> None:
    """Give ``layer`` a bias, named after its weight although a fake quantiser stands before that."""
    weight = _constant_behind(layer.args[1])
    assert weight is not None
    rounded, arguments = layer.args[1], list(layer.args)
    arguments[1] = weight
    layer.args = tuple(arguments)
    replace_argument(graph, layer, 2, bias)
    arguments = list(layer.args)
    arguments[1] = rounded
    layer.args = tuple(arguments)


def _constant_behind(node: object) -> Node | None:
    """The constant that is read through fake quantisers (and a norm); None where it has other readers as well."""
    while isinstance(node, Node) and node.op == "call_module":
        node = node.args[0]
    if not isinstance(node, Node) or node.op != "get_attr" or len(node.users) != 1:
        return None
    return node
