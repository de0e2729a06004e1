"""Which channels of a network can be cut together, and cutting them.

torch-pruning follows the dependencies between layers. It guesses at reshapes, slices and attention, and a wrong
guess gives either an error or, worse, a network that runs and computes something else. So every
group of channels is put on trial before it is used: on a copy, its channels are first set to zero
and then cut; both must give the same outputs.
"""

from __future__ import annotations

import copy
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = [
    "Cut",
    "Prunable",
    "Region",
    "cut_channels",
    "dependency_graph",
    "find_regions",
    "group_of",
    "groups_of",
    "is_sound",
    "region_inputs",
    "shapes",
    "sound_groups",
    "tensors_of",
    "zero_channels",
]

ATTENTION_LAYERS = frozenset(
    (
        *("qkv", "q", "k", "v", "kv", "query", "key", "value", "in_proj"),
        *("to_q", "to_k", "to_v", "to_kv", "to_qkv", "q_proj", "k_proj", "v_proj", "qkv_proj"),
    )
)
"""Names of layers whose outputs are split into heads; a cut would have to be the same in every head."""

_TOLERANCE = 1e-3
"""Allowed difference of zeroed and cut network, relative to how far two inputs' outputs lie apart."""


@dataclass(frozen=True)
class Region:
    """A part of the network that is cut on its own: the whole (name ""), or a submodule that can be traced.

    ``example`` is an input of it, batch 1. Its outputs keep their width.
    """

    name: str
    example: torch.Tensor


@dataclass(frozen=True)
class Prunable:
    """Output channels of ``layer`` (name within ``region``) and all that goes with them.

    Each of ``units`` is a set of channels that can only go together: mostly one, several where the same
    cut must be made in every group of a grouped convolution, or where a concatenation ties them.
    """

    region: str
    layer: str
    units: tuple[tuple[int, ...], ...]

    @property
    def channels(self) -> int:
        """How many channels the layer has."""
        return sum(len(unit) for unit in self.units)


@dataclass(frozen=True)
class Cut:
    """One entry of a pruning history: output channels ``indices`` of ``layer`` of ``region`` go, in ``round`` 0, 1, ...

    Plain values, so that a history can be kept as JSON.
    """

    round: int
    region: str
    layer: str
    indices: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"round": self.round, "region": self.region, "layer": self.layer, "indices": list(self.indices)}

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> Cut:
        """The opposite of `to_dict`."""
        return Cut(int(raw["round"]), str(raw["region"]), str(raw["layer"]), tuple(int(i) for i in raw["indices"]))


def dependency_graph(module: nn.Module, example: torch.Tensor) -> Any:
    """torch-pruning's dependency graph of ``module``, which stays as it is (evaluation mode is set).

    Fang et al.: DepGraph: Towards Any Structural Pruning, arXiv:2301.12900.
    """
    from edgecv.optimize.prune_search import Graph

    # Tracing follows gradients, so frozen layers would look like constants.
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    with _quiet(), torch.enable_grad():
        return Graph().build_dependency(module, example, forward_fn=lambda model, inputs: model(inputs), verbose=False)


def find_regions(module: nn.Module, example: torch.Tensor) -> list[Region]:
    """The whole of ``module``, or, where it cannot be traced, the largest submodules that can.

    ``example`` is an input `(1, C, H, W)`. Only submodules with one tensor in, one out, called once.
    """
    if _traceable(module, example):
        return [Region("", example)]
    inputs = region_inputs(module, example)
    found: list[Region] = []

    def search(parent: nn.Module, prefix: str) -> None:
        for name, child in parent.named_children():
            full = f"{prefix}{name}"
            if full in inputs and any(True for _ in child.children()) and _traceable(child, inputs[full]):
                found.append(Region(full, inputs[full]))
            else:
                search(child, full + ".")

    search(module, "")
    return found


def groups_of(module: nn.Module, region: Region, *, protected: frozenset[str]) -> Iterator[tuple[Prunable, Any]]:
    """Groups of ``region`` that may be cut, each with torch-pruning's own group (all channels).

    ``protected`` are full names of layers whose outputs keep their width; the region's outputs and the
    heads of attention keep theirs too.
    """
    part = module.get_submodule(region.name)
    graph = dependency_graph(part, region.example)
    prefix = region.name + "." if region.name else ""
    names = {child: name for name, child in part.named_modules()}
    kept = [child for child, name in names.items() if prefix + name in protected]
    with _quiet():
        for group in graph.get_all_groups(ignored_layers=kept):
            if _is_fixed(graph, group, names):
                continue
            root = group[0].dep.target.module
            prunable = Prunable(region.name, names[root], _units(graph, group))
            if len(prunable.units) > 1:
                yield prunable, group


def sound_groups(
    module: nn.Module, regions: Sequence[Region], groups: Sequence[Prunable], *, example: torch.Tensor
) -> list[Prunable]:
    """Those of ``groups`` that can be cut, alone and together, without changing what the network computes."""
    if not groups:
        return []
    cuts = [Cut(0, group.region, group.layer, _trial_indices(group)) for group in groups]
    if is_sound(module, regions, cuts, example=example):
        return list(groups)
    if len(groups) == 1:
        return []
    half = len(groups) // 2
    left = sound_groups(module, regions, groups[:half], example=example)
    right = sound_groups(module, regions, groups[half:], example=example)
    if not left or not right:
        return left or right
    both = [Cut(0, group.region, group.layer, _trial_indices(group)) for group in (*left, *right)]
    if is_sound(module, regions, both, example=example):
        return left + right
    return max(left, right, key=len)


def is_sound(module: nn.Module, regions: Sequence[Region], cuts: Sequence[Cut], *, example: torch.Tensor) -> bool:
    """Whether ``cuts`` leave a network that computes what ``module`` computes with those channels set to zero.

    ``module`` stays as it is. Normalisation over channels is taken out of both, because it mixes them.
    """
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(example.shape, generator=random, dtype=torch.float64) for _ in range(2)]
    try:
        trial = copy.deepcopy(module).eval()
        try:
            trial.double()(inputs[0])
            regions = [Region(region.name, region.example.double()) for region in regions]
        except (RuntimeError, ValueError, TypeError):
            trial, inputs = trial.float(), [item.float() for item in inputs]
        _without_normalisation(trial)
        graphs = {region.name: dependency_graph(trial.get_submodule(region.name), region.example) for region in regions}
        with torch.no_grad():
            zero_channels(trial, graphs, cuts)
            zeroed = [_flat(trial(item)) for item in inputs]
            _apply(trial, graphs, cuts)
            cut = [_flat(trial(item)) for item in inputs]
    except Exception:  # noqa: BLE001 - a wrong cut makes the user's own forward fail, with anything
        return False
    if any(one.shape != other.shape for one, other in zip(zeroed, cut, strict=True)):
        return False
    spread = (zeroed[0] - zeroed[1]).abs().max().item()
    error = max((one - other).abs().max().item() for one, other in zip(zeroed, cut, strict=True))
    floor = zeroed[0].abs().max().item() * torch.finfo(zeroed[0].dtype).eps * 100
    return error <= _TOLERANCE * spread + floor


def cut_channels(module: nn.Module, regions: Sequence[Region], cuts: Sequence[Cut]) -> None:
    """Cut channels of ``module`` in place."""
    wanted = {cut.region for cut in cuts}
    graphs = {
        region.name: dependency_graph(module.get_submodule(region.name), region.example)
        for region in regions
        if region.name in wanted
    }
    with torch.no_grad():
        _apply(module, graphs, cuts)


def _apply(module: nn.Module, graphs: Mapping[str, Any], cuts: Sequence[Cut]) -> None:
    with _quiet():
        for name, graph in graphs.items():
            for cut in cuts:
                if cut.region == name:
                    group_of(graph, module, cut).prune(record_history=False)


def group_of(graph: Any, module: nn.Module, cut: Cut) -> Any:
    """torch-pruning's own group of exactly the channels of ``cut``."""
    layer = module.get_submodule(cut.region).get_submodule(cut.layer)
    return graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, list(cut.indices))


def zero_channels(module: nn.Module, graphs: Mapping[str, Any], cuts: Sequence[Cut]) -> None:
    """Set everything that makes the channels of ``cuts`` to zero; what reads them stays."""
    for cut in cuts:
        graph = graphs[cut.region]
        with _quiet():
            items = list(group_of(graph, module, cut))
        for dependency, indices in items:
            if not graph.is_out_channel_pruning_fn(dependency.handler):
                continue
            layer, index = dependency.target.module, torch.tensor(indices, dtype=torch.long)
            if isinstance(layer, nn.Parameter):
                layer.index_fill_(dependency.target.pruning_dim, index, 0.0)
                continue
            axis = 1 if getattr(layer, "transposed", False) or isinstance(layer, nn.Embedding) else 0
            for name in ("weight", "bias", "running_mean"):
                values = getattr(layer, name, None)
                if isinstance(values, torch.Tensor) and not isinstance(layer, nn.PReLU):
                    values.index_fill_(axis if name == "weight" else 0, index, 0.0)


def _without_normalisation(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, (nn.LayerNorm, nn.GroupNorm)):
            object.__setattr__(child, "forward", types.MethodType(_affine_only, child))


def _affine_only(norm: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Scale and shift of a layer or group norm without its statistics."""
    if norm.weight is None:
        return inputs
    channels = norm.weight.shape[0]
    last = isinstance(norm, nn.LayerNorm) and not (
        inputs.ndim == 4 and (inputs.shape[-1] != channels or type(norm).__name__.endswith("2d"))
    )
    shape = (-1,) if last else (1, -1) + (1,) * (inputs.ndim - 2)
    scaled = inputs * norm.weight.reshape(shape)
    return scaled if norm.bias is None else scaled + norm.bias.reshape(shape)


def _traceable(module: nn.Module, example: torch.Tensor) -> bool:
    try:
        graph = dependency_graph(copy.deepcopy(module).eval(), example)
        with _quiet():
            return any(True for _ in graph.get_all_groups())
    except Exception:  # noqa: BLE001 - torch-pruning fails in many ways on graphs that it does not know
        return False


def region_inputs(module: nn.Module, example: torch.Tensor) -> dict[str, torch.Tensor]:
    """The input of every submodule that is called once, with one tensor, and gives one tensor."""
    calls: dict[str, list[torch.Tensor | None]] = {}

    def record(name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            plain = len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
            fits = plain and isinstance(output, torch.Tensor)
            calls.setdefault(name, []).append(args[0].detach().clone() if fits else None)

        return hook

    handles = [
        child.register_forward_hook(record(name), with_kwargs=True) for name, child in module.named_modules() if name
    ]
    try:
        with torch.no_grad():
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: items[0] for name, items in calls.items() if len(items) == 1 and items[0] is not None}


def _repeats(graph: Any, group: Any) -> int:
    """In how many equal parts of the channels the same positions must be cut."""
    parts = [1]
    for dependency, _ in group:
        layer = dependency.target.module
        pruner = graph.get_pruner_of_module(layer)
        if isinstance(layer, nn.Parameter) or (
            isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.out_channels
        ):
            continue
        out = graph.is_out_channel_pruning_fn(dependency.handler)
        parts.append(pruner.get_out_channel_groups(layer) if out else pruner.get_in_channel_groups(layer))
    return max(parts)


def _units(graph: Any, group: Any) -> tuple[tuple[int, ...], ...]:
    root = group[0].dep.target.module
    repeats = _repeats(graph, group)
    size = graph.get_out_channels(root) // repeats
    units = [tuple(part * size + position for part in range(repeats)) for position in range(size)]
    probes = [units[: max(1, size // 2)], units[1::4]]
    if all(_reach(graph, group, probe) == {index for unit in probe for index in unit} for probe in probes if probe):
        return tuple(units)
    # Something ties channels of this layer together (a concatenation added to a whole): find out which.
    merged: list[set[int]] = []
    for unit in units:
        together = _reach(graph, group, [unit])
        apart = [other for other in merged if not other & together]
        for other in merged:
            if other & together:
                together |= other
        merged = [*apart, together]
    return tuple(sorted(tuple(sorted(unit)) for unit in merged))


def _reach(graph: Any, group: Any, units: Sequence[Sequence[int]]) -> set[int]:
    """Channels of the group's first layer that go when those of ``units`` go."""
    root, function = group[0].dep.target.module, group[0].dep.handler
    asked = [index for unit in units for index in unit]
    reached = set(asked)
    for dependency, indices in graph.get_pruning_group(root, function, asked):
        if dependency.target.module is root and graph.is_out_channel_pruning_fn(dependency.handler):
            reached.update(int(index) for index in indices)
    return reached


def _is_fixed(graph: Any, group: Any, names: Mapping[nn.Module, str]) -> bool:
    for dependency, _ in group:
        layer = dependency.target.module
        if dependency.target.type == graph.ops.OPTYPE.OUTPUT or isinstance(layer, nn.MultiheadAttention):
            return True
        name = names.get(layer, "") if isinstance(layer, nn.Module) else ""
        heads = name.rpartition(".")[2] in ATTENTION_LAYERS
        if (heads or layer in graph.endless) and graph.is_out_channel_pruning_fn(dependency.handler):
            return True
    return False


def _trial_indices(group: Prunable) -> tuple[int, ...]:
    """A scattered quarter of the channels: a shift by a single channel somewhere would show."""
    return tuple(sorted(index for unit in group.units[1::4] for index in unit))


def tensors_of(outputs: Any) -> tuple[torch.Tensor, ...]:
    """A module's ``outputs``, a tensor or a sequence of tensors, as a tuple."""
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def shapes(outputs: Any) -> list[tuple[int, ...]]:
    """Shapes of a module's ``outputs``, a tensor or a sequence of tensors."""
    return [tuple(item.shape) for item in tensors_of(outputs)]


def _flat(outputs: Any) -> torch.Tensor:
    return torch.cat([item.reshape(-1) for item in tensors_of(outputs)])


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
