"""Recurrent layers for coremltools: it converts LSTM and GRU of TorchScript, but not as an exported program has them.

There the operators are named ``lstm.input`` and ``gru.input`` and give one tuple, from which others take their parts.
Each layer becomes Core ML's own recurrent operator, not an operator for each step of the sequence.
"""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["teach_recurrent_layers"]

_RESULTS = {"lstm": 3, "gru": 2}
"""The sequence and the last states."""


def teach_recurrent_layers() -> None:
    """Register converters for the recurrent operators of ``torch.export`` that coremltools has none for.

    Done again, it changes nothing.
    """
    from coremltools.converters.mil.frontend.torch import ops, register_torch_op

    for name, count in _RESULTS.items():
        convert = _as_tuple(name, getattr(ops, name), count)
        register_torch_op(convert, torch_alias=[f"{name}.input"], override=True)


def _as_tuple(name: str, convert: Any, count: int) -> Any:
    """``convert`` of coremltools, which adds ``count`` results by their names, for a node that is their tuple."""

    def converter(context: Any, node: Any) -> None:
        parts = copy.copy(node)
        # Not NAME_0, NAME_1, ...: the next layer of the graph is called so.
        parts.outputs = [f"{node.name}_result_{index}" for index in range(count)]
        convert(context, parts)
        context.add(tuple(context[output] for output in parts.outputs), torch_name=node.name)

    converter.__name__ = f"edgecv_{name}"
    return converter
