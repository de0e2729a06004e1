"""torch-pruning's search for the channels that go together, kept quick and kept from running on for ever.

The library compares each step of a search with all steps before it, one after the other, which takes minutes for a
network with two heads over a pyramid. Where it takes a reshape for something else (the tokens of a transformer that
become a map again) its lists of channels grow with every round through the network, and the search never ends.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch_pruning
from torch import nn
from torch_pruning.dependency import graph as library

__all__ = ["Graph"]

MOST_ENTRIES = 1_000_000
"""Channels that the steps of one search may name together. Those of a VGG16 name 232,000 at most, those of a
Mask R-CNN over a ResNet-50 with a pyramid 191,000, and a million take half a second."""


class _Endless(Exception):
    """A search named more channels than `MOST_ENTRIES`."""


_PLAIN = library.Group


class _QuickGroup(library.Group):
    """A group that finds its own steps by hash."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: set[Hashable] = set()
        self._places: dict[Hashable, int] = {}
        self._known: dict[Hashable, set[int]] = {}
        self._entries = 0

    def add_dep(self, dep: Any, idxs: Any) -> None:
        """Add a step: what is cut (``dep``) and which channels."""
        super().add_dep(dep, idxs)
        self._steps.add(_step(dep, idxs))
        self._entries += len(idxs)
        if self._entries > MOST_ENTRIES:
            raise _Endless

    def has_pruning_op(self, dep: Any, idxs: Any) -> bool:
        """Whether this very step is there already."""
        return _step(dep, idxs) in self._steps

    def add_and_merge(self, dep: Any, idxs: Any) -> None:
        """Add a step, or its channels to those of the step that cuts the same."""
        key = (id(dep.target), dep.handler)
        if key not in self._places:
            self._places[key] = len(self)
            self.add_dep(dep, idxs)
            return
        step = self[self._places[key]]
        known = self._known.get(key)
        if known is None:
            first = {index.idx: index for index in reversed(step.idxs)}
            step = type(step)(dep=step.dep, idxs=[first[place] for place in dict.fromkeys(i.idx for i in step.idxs)])
            self[self._places[key]], known = step, self._known.setdefault(key, set(first))
        for index in idxs:
            if index.idx not in known:
                known.add(index.idx)
                step.idxs.append(index)


def _step(dep: Any, idxs: Any) -> Hashable:
    return id(dep.target), dep.handler, tuple(idxs)


class Graph(torch_pruning.DependencyGraph):
    """A dependency graph whose searches end.

    ``endless`` are the layers whose search did not; a group of theirs holds the layer alone, and must not be cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.endless: set[nn.Module] = set()

    def get_pruning_group(self, module: nn.Module, pruning_fn: Callable[..., Any], idxs: Sequence[int]) -> Any:
        """All that goes with output or input channels ``idxs`` (by ``pruning_fn``) of ``module``."""
        if module not in self.endless:
            library.Group = _QuickGroup
            try:
                return super().get_pruning_group(module, pruning_fn, idxs)
            except _Endless:
                self.endless.add(module)
            finally:
                library.Group = _PLAIN
        alone = _PLAIN()
        node = self.module2node[module]
        alone.add_dep(library.Dependency(pruning_fn, pruning_fn, source=node, target=node), list(idxs))
        return alone
