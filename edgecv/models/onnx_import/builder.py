"""A torch.fx graph under construction: every call that is added is also tried on shapes, at batch 1 and batch 3."""

from __future__ import annotations

import logging
import operator
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Node

from edgecv.errors import ModelError
from edgecv.models.onnx_import.names import Names, path_of
from edgecv.models.onnx_import.values import Call, Constant, Value

__all__ = ["Builder"]

MANY = 3
"""The batch size at which shapes are tried beside 1; an axis whose length differs holds the batch."""


class Builder:
    """Collects nodes and modules.

    Shapes that callers see are those at batch 1. Where a call fails at a batch of several pictures,
    ``batch_note`` says at which ONNX node, and everything that reads its result is fixed to batch 1.
    """

    def __init__(self, example: Sequence[int]) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.batch_note = ""
        self.call: Call | None = None
        self._names = Names()
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._one: dict[Node, Any] = {}
        self._many: dict[Node, Any] = {}
        self._buffers: dict[int, Node] = {}
        self._kept: list[Constant] = []
        self._layers: dict[Any, str] = {}
        self.input = self.graph.placeholder("images")
        self.input.meta["shape"] = tuple(example)
        with self._mode:
            self._one[self.input] = torch.empty(tuple(example))
            self._many[self.input] = torch.empty((MANY, *tuple(example)[1:]))

    def fn(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
        """Add a call of a torch function on nodes, arrays (which become buffers) and plain values."""
        args, kwargs = self._arguments(args, kwargs)
        node = self.graph.call_function(target, args, kwargs)
        return self._tried(node, target)

    def method(self, name: str, value: Value, *args: Any) -> Node:
        """Add a call of a tensor's method."""
        args, _ = self._arguments((value, *args), {})
        node = self.graph.call_method(name, args)
        return self._tried(node, lambda item, *rest: getattr(item, name)(*rest))

    def layer(self, module: nn.Module, value: Value, *, path: str, key: Any = None) -> Node:
        """Add a module and its call on ``value``. Calls with the same ``key`` share one module."""
        if key is not None and key in self._layers:
            path = self._layers[key]
            module = self.root.get_submodule(path)
        else:
            path = self._names.take(path)
            _put(self.root, path, module.eval())
            if key is not None:
                self._layers[key] = path
        args, _ = self._arguments((value,), {})
        return self._tried(self.graph.call_module(path, args), module)

    def pick(self, node: Node, index: int) -> Node:
        """One of several results of a call."""
        return self.fn(operator.getitem, node, index)

    def shape(self, value: Value) -> tuple[int, ...]:
        """Shape at batch 1."""
        found = value if isinstance(value, np.ndarray) else self._one[value]
        return tuple(int(length) for length in found.shape)

    def rank(self, value: Value) -> int:
        """Number of axes."""
        return len(self.shape(value))

    def axis(self, value: Value, axis: int) -> int:
        """``axis`` counted from the front."""
        return axis % max(1, self.rank(value))

    def is_float(self, value: Value) -> bool:
        """Whether the values are floating-point numbers."""
        if isinstance(value, np.ndarray):
            return bool(np.issubdtype(value.dtype, np.floating))
        return bool(self._one[value].is_floating_point())

    def shape_of_many(self, value: Value) -> tuple[int, ...] | None:
        """Shape at batch `MANY`; None where it is not known how the value grows with the batch."""
        if isinstance(value, np.ndarray):
            return tuple(value.shape)
        found = self._many.get(value)
        return tuple(int(length) for length in found.shape) if isinstance(found, Tensor) else None

    def batch_axis(self, value: Value) -> int | None:
        """The axis that grows with the batch; None where there is none, or it is not known."""
        one, many = self.shape(value), self.shape_of_many(value)
        if many is None or len(many) != len(one):
            return None
        axes = [index for index, pair in enumerate(zip(one, many, strict=True)) if pair[0] != pair[1]]
        return axes[0] if len(axes) == 1 else None

    def fix_batch(self, reason: str) -> None:
        """Note that the graph works at batch 1 only; the first reason is kept."""
        if not self.batch_note:
            node = f"{self.call.op} of node {self.call.name!r}" if self.call else "the graph"
            self.batch_note = f"{node} {reason}"

    def operands(self, one: Value, other: Value) -> tuple[Any, Any]:
        """Both for arithmetic: a constant of one element is a plain number, where that keeps the result's shape."""

        def plain(value: Value, beside: Value) -> Any:
            if not isinstance(value, np.ndarray) or not isinstance(beside, Node) or value.size != 1:
                return value
            same_kind = self.is_float(value) == self.is_float(beside)
            return value.reshape(-1)[0].item() if same_kind and value.ndim <= self.rank(beside) else value

        return plain(one, other), plain(other, one)

    def buffer(self, value: Constant, hint: str = "") -> Node:
        """The node that reads ``value``, which becomes a buffer of the module; once for the same array."""
        known = self._buffers.get(id(value))
        if known is not None:
            return known
        stem = hint or (self.call.name if self.call else "") or "constant"
        stem = re.sub(r"\W", "_", path_of(stem).replace(".", "_")) + ("" if hint else "_constant")
        name = self._names.take(f"_{stem}" if stem[0].isdigit() else stem)
        self.root.register_buffer(name, torch.from_numpy(np.array(value, copy=True)))
        node = self.graph.get_attr(name)
        self._one[node] = self._many[node] = self._mode.from_tensor(self.root.get_buffer(name))
        node.meta["shape"] = tuple(value.shape)
        self._buffers[id(value)] = node
        self._kept.append(value)  # an id is only good while its array lives
        return node

    def value_of(self, node: Node) -> Any:
        """The shape-only tensor (or plain value) of ``node`` at batch 1."""
        return self._one[node]

    def _arguments(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        def ready(item: Any) -> Any:
            if isinstance(item, np.ndarray):
                return self.buffer(item)
            if isinstance(item, (tuple, list)):
                return type(item)(ready(part) for part in item)
            return item

        return tuple(ready(item) for item in args), {key: ready(item) for key, item in kwargs.items()}

    def _tried(self, node: Node, target: Callable[..., Any]) -> Node:
        try:
            self._one[node] = self._run(node, target, self._one)
        except Exception as error:
            # torch refuses wrong shapes and types with whatever exception it likes
            raise ModelError(
                f"{self.call.op if self.call else node.op} of node {self.call.name if self.call else node.name!r} "
                f"cannot be computed by torch: {_first_line(error)}"
            ) from error
        if isinstance(self._one[node], Tensor):
            node.meta["shape"] = self.shape(node)
        if any(item not in self._many for item in node.all_input_nodes):
            return node
        try:
            found = self._run(node, target, self._many)
        except Exception as error:  # noqa: BLE001 - as above; here it only says that batches do not work
            self.fix_batch(f"works on one picture only ({_first_line(error)})")
            return node
        if _ranks(found) == _ranks(self._one[node]):
            self._many[node] = found
        else:
            self.fix_batch("drops the batch axis")
        return node

    def _run(self, node: Node, target: Callable[..., Any], known: dict[Node, Any]) -> Any:
        args = fx.node.map_arg(node.args, lambda item: known[item])
        kwargs = fx.node.map_arg(node.kwargs, lambda item: known[item])
        logger = logging.getLogger("torch._subclasses.fake_tensor")
        level = logger.level
        logger.setLevel(logging.CRITICAL)  # it logs a traceback on top of raising
        try:
            with self._mode, torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return target(*args, **kwargs)
        finally:
            logger.setLevel(level)


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    *folders, name = path.split(".")
    place = root
    for folder in folders:
        if not hasattr(place, folder):
            place.add_module(folder, nn.Module())
        place = place.get_submodule(folder)
    place.add_module(name, module)


def _ranks(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.ndim
    return [_ranks(item) for item in value] if isinstance(value, (tuple, list)) else 0


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
