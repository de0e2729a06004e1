"""Distillation inside of a network: where the student looks at is compared with where its teacher does.

Attention transfer: Zagoruyko and Komodakis, arXiv:1612.03928. Of a map only the energy at each place
counts, so that a pruned student with fewer channels can be compared as well.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional

from edgecv.core.recipe import Distill
from edgecv.errors import ModelError
from edgecv.models.streaming import Unrolled
from edgecv.optimize.graph import finish, module_path

__all__ = ["TAPS", "FeatureTaps", "attention", "mark_features", "tap_features", "unmark_features"]

TAPS = "feature_taps"
"""Key of a graph's ``meta``: the submodule that passes on the result of each marked module, by that one's name."""
_NAME = "feature_tap"


@dataclass
class FeatureTaps:
    """What both networks computed last, by module name; a forward pass of each refreshes it.

    ``frame_by_frame``: the student goes through clips frame by frame and was at the last one, the teacher has all
    frames at once.
    """

    weight: float
    student: dict[str, Tensor] = field(default_factory=dict)
    teacher: dict[str, Tensor] = field(default_factory=dict)
    frame_by_frame: bool = False

    def loss(self) -> Tensor:
        """Mean over the modules, times the weight; a scalar.

        Results of one shape are compared value by value, relative to the teacher's variance (Romero et al. 2015,
        FitNets, arXiv:1412.6550), all others by their attention maps.
        """
        parts = []
        for name, seen in self.student.items():
            known = self.teacher[name].float()
            known = _of_last_frames(known, len(seen)) if self.frame_by_frame else known
            if seen.shape == known.shape:
                parts.append((seen.float() - known).square().mean() / known.var().clamp_min(1e-12))
                continue
            one, other = attention(seen), attention(known)
            if one.shape != other.shape:
                raise ModelError(
                    f"distill.features: {name!r} gives {tuple(seen.shape)} in the student and "
                    f"{tuple(self.teacher[name].shape)} in the teacher; name modules whose results have the same places"
                )
            parts.append((one - other).square().sum(dim=1).mean())
        return self.weight * torch.stack(parts).mean()


def attention(values: Tensor) -> Tensor:
    """Energy at each place of `(N, C, ...)` (tokens: `(N, T, C)`; vectors as they are), of length 1: `(N, places)`."""
    values = values.float()
    if values.ndim >= 3:
        values = values.square().mean(dim=-1 if values.ndim == 3 else 1)
    return functional.normalize(values.flatten(1), dim=1)


@contextmanager
def tap_features(teacher: nn.Module | None, student: nn.Module, distill: Distill) -> Iterator[FeatureTaps | None]:
    """While the block runs, the results of the modules that ``distill.features`` names are kept.

    Raises:
        ModelError: a glob fits no module that both networks have.
    """
    if teacher is None or not distill.features or distill.weight == 0.0:
        yield None
        return
    taps = FeatureTaps(distill.feature_weight, frame_by_frame=isinstance(student, Unrolled))
    one, other = _places(student), _places(teacher)
    shared = [name for name in one if name in other]
    names = [name for name in shared if any(fnmatch.fnmatchcase(name, glob) for glob in distill.features)]
    for glob in distill.features:
        if not any(fnmatch.fnmatchcase(name, glob) for name in names):
            raise ModelError(
                f"distill.features: {glob!r} fits no module that student and teacher have; the first names are "
                f"{', '.join(shared[:8]) or 'none'}"
            )
    handles = [
        *(one[name].register_forward_hook(_keep(taps.student, name)) for name in names),
        *(other[name].register_forward_hook(_keep(taps.teacher, name)) for name in names),
    ]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


def mark_features(graph: GraphModule, globs: Sequence[str]) -> int:
    """Put a tap behind every module of the original network that ``globs`` name; returns how many.

    ``graph`` comes from `capture`: its modules are gone, but its nodes know theirs.
    """
    last: dict[str, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and isinstance(node.meta.get("val"), Tensor):
            for path in module_path(node):
                last[path] = node
    marked: dict[str, str] = {}
    for path, node in last.items():
        if any(fnmatch.fnmatchcase(path, glob) for glob in globs):
            marked[path] = f"{_NAME}_{len(marked)}"
            graph.add_submodule(marked[path], nn.Identity())
            users = list(node.users)
            with graph.graph.inserting_after(node):
                tap = graph.graph.call_module(marked[path], (node,))
            tap.meta = dict(node.meta)
            for user in users:
                user.replace_input_with(node, tap)
    graph.meta[TAPS] = marked
    finish(graph)
    return len(marked)


def unmark_features(graph: GraphModule) -> None:
    """Take the taps of `mark_features` out again."""
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and str(node.target).startswith(_NAME):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.meta.pop(TAPS, None)
    finish(graph)


def _of_last_frames(values: Tensor, clips: int) -> Tensor:
    """Of all frames of so many clips, `(clips * frames, ...)`, the last ones, `(clips, ...)`."""
    return values.reshape(clips, -1, *values.shape[1:])[:, -1]


def _places(module: nn.Module) -> Mapping[str, nn.Module]:
    module = module.step if isinstance(module, Unrolled) else module
    marked = module.meta.get(TAPS) if isinstance(module, GraphModule) else None
    if marked:
        return {name: module.get_submodule(tap) for name, tap in marked.items()}
    return {name: part for name, part in module.named_modules() if name}


def _keep(kept: dict[str, Tensor], name: str) -> Any:
    def hook(_: nn.Module, __: Any, result: Any) -> None:
        kept[name] = result if isinstance(result, Tensor) else result[0]

    return hook
