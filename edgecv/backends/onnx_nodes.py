"""Which operators an ONNX file uses, read without the onnx package (a board has only the runtime).

An ONNX file is a protobuf message; few fields are needed of it: ModelProto.graph (7),
GraphProto.node (1) and NodeProto.input (1), output (2) and op_type (4). Sub-graphs inside attributes are not entered.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgecv.backends.protobuf import messages
from edgecv.errors import ArtifactError

_GRAPH, _NODE = 7, 1
_INPUT, _OUTPUT, _OP_TYPE = 1, 2, 4


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
        return [_node(node) for graph in messages(content, _GRAPH) for node in messages(graph, _NODE)]
    except (IndexError, ValueError) as error:
        raise ArtifactError(f"{path} is not an ONNX file ({error}); build it again") from error


def _node(content: memoryview) -> Node:
    inputs, outputs, kinds = (
        tuple(bytes(text).decode() for text in messages(content, field)) for field in (_INPUT, _OUTPUT, _OP_TYPE)
    )
    return Node(kinds[0] if kinds else "", inputs, outputs)


def op_types(path: Path) -> Counter[str]:
    """How often each operator occurs in the main graph of the ONNX file.

    Raises:
        ArtifactError: the file is not an ONNX file or is cut short.
    """
    return Counter(node.op_type for node in read_nodes(path))
