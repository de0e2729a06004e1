"""The constants, scales and nodes of an ONNX file, read without the onnx package (a board has only the runtime).

Fields of the protobuf messages (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): GraphProto.node 1,
initializer 5; NodeProto.attribute 5; AttributeProto.name 1, t 5; TensorProto.dims 1, data_type 2, float_data 4,
int32_data 5, int64_data 7, name 8, raw_data 9, double_data 10.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecv.backends.protobuf import fields, integers, messages
from edgecv.core.tensor import Array
from edgecv.errors import ArtifactError

_TYPES = {1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8", 12: "<u4"}


def read_graph(path: Path) -> tuple[dict[str, Array], list[tuple[str, tuple[str, ...], tuple[str, ...], bytes]]]:
    """Constants by name, and the nodes in order: operator, inputs, outputs and the bytes of their attributes.

    Constants of a type that numpy does not have, and those kept in another file, are left out.

    Raises:
        ArtifactError: the file is not an ONNX file or is cut short.
    """
    try:
        constants: dict[str, Array] = {}
        nodes = []
        for graph in messages(memoryview(path.read_bytes()), 7):
            for field, value in fields(graph):
                if field == 5 and isinstance(value, memoryview):
                    named = _tensor(value)
                    if named is not None:
                        constants[named[0]] = named[1]
                elif field == 1 and isinstance(value, memoryview):
                    nodes.append(_node(value, constants))
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is not an ONNX file ({error}); build it again") from error
    return constants, nodes


def _node(content: memoryview, constants: dict[str, Array]) -> tuple[str, tuple[str, ...], tuple[str, ...], bytes]:
    texts: dict[int, list[str]] = {1: [], 2: [], 4: []}
    attributes = []
    for field, value in fields(content):
        if field in texts and isinstance(value, memoryview):
            texts[field].append(bytes(value).decode())
        elif field == 5 and isinstance(value, memoryview):
            attributes.append(bytes(value))
            for tensor in messages(value, 5):
                named = _tensor(tensor)
                if named is not None and texts[2]:
                    constants[texts[2][0]] = named[1]
    kind = texts[4][0] if texts[4] else ""
    return kind, tuple(texts[1]), tuple(texts[2]), b"".join(sorted(attributes)) if kind != "Constant" else b""


def _tensor(content: memoryview) -> tuple[str, Array] | None:
    """Name and values of a TensorProto; None where numpy has no such type or the values are in another file."""
    numbers: dict[int, list[int]] = {}
    texts: dict[int, bytes] = {}
    for field, value in fields(content):
        if field in (1, 5, 7):
            numbers.setdefault(field, []).extend(integers(value) if isinstance(value, memoryview) else [value])
        elif isinstance(value, memoryview):
            texts[field] = texts.get(field, b"") + bytes(value)
        else:
            numbers[field] = [value]
    kind = numbers.get(2, [0])[0]
    if kind not in _TYPES or numbers.get(14, [0])[0] == 1:
        return None
    name, shape, dtype = texts.get(8, b"").decode(), numbers.get(1, []), np.dtype(_TYPES[kind])
    stored = texts.get(9) or texts.get(4) or texts.get(10)
    whole = numbers.get(5) or numbers.get(7)
    if stored is not None or whole is None:
        return name, np.frombuffer(stored or b"", dtype=dtype).reshape(shape)
    signed = np.array([item - (1 << 64) if item >= 1 << 63 else item for item in whole], dtype=np.int64)
    if dtype == np.float16:
        return name, signed.astype(np.uint16).view(np.float16).reshape(shape)
    return name, signed.astype(dtype).reshape(shape)
