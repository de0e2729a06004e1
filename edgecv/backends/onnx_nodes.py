"""Which operators an ONNX file uses, read without the onnx package (a board has only the runtime).

An ONNX file is a protobuf message; few fields are needed of it: ModelProto.graph (7),
GraphProto.node (1) and NodeProto.input (1), output (2) and op_type (4). Sub-graphs inside attributes are not entered.
Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgecv.errors import ArtifactError

_GRAPH, _NODE = 7, 1
_INPUT, _OUTPUT, _OP_TYPE = 1, 2, 4
_FIXED_BYTES = {1: 8, 5: 4}


@dataclass(frozen=True)
class Node:
    """One node of an ONNX graph: its operator and the names of what it reads and makes."""

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_nodes(path: Path) -> list[Node]:
    """The nodes of the main graph of the ONNX file, in order.

    Raises:
        ArtifactError: the file is not an ONNX file or is cut short.
    """
    content = memoryview(path.read_bytes())
    try:
        return [_node(node) for graph in _messages(content, _GRAPH) for node in _messages(graph, _NODE)]
    except (IndexError, ValueError) as error:
        raise ArtifactError(f"{path} is not an ONNX file ({error}); build it again") from error


def _node(content: memoryview) -> Node:
    inputs, outputs, kinds = (
        tuple(bytes(text).decode() for text in _messages(content, field)) for field in (_INPUT, _OUTPUT, _OP_TYPE)
    )
    return Node(kinds[0] if kinds else "", inputs, outputs)


def op_types(path: Path) -> Counter[str]:
    """How often each operator occurs in the main graph of the ONNX file.

    Raises:
        ArtifactError: the file is not an ONNX file or is cut short.
    """
    return Counter(node.op_type for node in read_nodes(path))


def _messages(content: memoryview, wanted: int) -> Iterator[memoryview]:
    """Values of the length-delimited field number ``wanted``."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        field, kind = key >> 3, key & 7
        if kind == 0:
            _, position = _varint(content, position)
            continue
        if kind == 2:
            length, position = _varint(content, position)
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if position + length > len(content):
            raise ValueError(f"a field of {length} bytes at byte {position} is cut short")
        if kind == 2 and field == wanted:
            yield content[position : position + length]
        position += length


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a number at byte {position} is too long")
