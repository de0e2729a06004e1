"""Reading operator names out of ONNX files without onnx, held against onnx itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgecv.backends.onnx_nodes import op_types, read_nodes
from edgecv.errors import ArtifactError


def test_counts_agree_with_onnx(qdq_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(qdq_model.SerializeToString())
    assert op_types(path) == Counter(node.op_type for node in qdq_model.graph.node)
    wanted = [(node.op_type, tuple(node.input), tuple(node.output)) for node in qdq_model.graph.node]
    assert [(node.op_type, node.inputs, node.outputs) for node in read_nodes(path)] == wanted


@pytest.mark.parametrize("name", ["fastestdet/FastestDet.onnx", "osnet_x0_25_msmt17/osnet_x0_25_msmt17.onnx"])
def test_counts_agree_with_onnx_on_published_files(shared_data: Path, name: str) -> None:
    import onnx

    path = shared_data / "models" / name
    graph = onnx.load(str(path)).graph
    assert op_types(path) == Counter(node.op_type for node in graph.node)


@pytest.mark.parametrize("content", [b"\x3a\x7f", b"\x3a", b"\xff" * 20, b"\x0b\x0c", b"hello world"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="is not an ONNX file"):
        op_types(tmp_path / "m.onnx")


def test_a_file_cut_short_is_refused(qdq_model: Any, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(qdq_model.SerializeToString()[:-40])
    with pytest.raises(ArtifactError, match="cut short"):
        op_types(tmp_path / "m.onnx")


def test_fields_of_every_wire_type_are_skipped(tmp_path: Path) -> None:
    # field 1 varint 300, field 2 fixed64, field 3 fixed32, then graph{node{op_type: "Relu"}}
    node = b"\x22\x04Relu"
    graph = b"\x0a" + bytes([len(node)]) + node
    content = b"\x08\xac\x02" + b"\x11" + b"\0" * 8 + b"\x1d" + b"\0" * 4 + b"\x3a" + bytes([len(graph)]) + graph
    (tmp_path / "m.onnx").write_bytes(content)
    assert op_types(tmp_path / "m.onnx") == {"Relu": 1}
