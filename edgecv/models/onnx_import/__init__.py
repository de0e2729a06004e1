"""An ONNX file as a torch module that trains, prunes, quantises and exports like any other.

The file is read and checked (`read`), its nodes become a torch.fx graph of torch modules and functions with plain
numbers for shapes (`graph`, `ops`; what does not depend on the picture is computed by `fold`), spelled-out
activations and norms become modules again (`patterns`), and the result is held against ONNX Runtime (`check`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from edgecv.core.contract import InputContract
from edgecv.models.onnx_import.check import batch_problem, check_same, sample
from edgecv.models.onnx_import.graph import build_graph
from edgecv.models.onnx_import.patterns import restore_modules
from edgecv.models.onnx_import.read import read_onnx

__all__ = ["batch_note", "import_onnx"]

_BATCH = 2


def import_onnx(path: Path, contract: InputContract) -> GraphModule:
    """The network of an ONNX file in evaluation mode: `(N, C, H, W)` float32 -> a tensor, or a tuple of tensors.

    ``contract`` gives C, H and W where the file leaves them open. Layers are torch modules with the names that
    the file has for them; other constants are buffers. It computes what ONNX Runtime computes (relative
    error at most 1e-4, tried on one random picture). Where the file's graph cannot take several pictures at
    once, the module refuses them, and `batch_note` says why.

    Raises:
        ModelError: no valid ONNX file for this input, a quantised file, or an operator that is not supported
            (its node is named).
    """
    file = read_onnx(path, contract)
    module, _, note = build_graph(file)
    restore_modules(module)
    module.eval()
    height, width = contract.size
    pictures = sample(contract, (_BATCH, contract.planes, height, width))
    check_same(file, module, pictures[:1])
    note = note or batch_problem(module, pictures)
    if note:
        module.meta["batch_note"] = f"{path}: {note}"
        _refuse_batches(module)
    return module


def batch_note(module: nn.Module) -> str:
    """Why an imported module takes one picture at a time only; "" where it takes batches."""
    meta: dict[str, Any] = getattr(module, "meta", {})
    return str(meta.get("batch_note", ""))


def _refuse_batches(module: GraphModule) -> None:
    first = next(node for node in module.graph.nodes if node.op != "placeholder")
    picture = next(node for node in module.graph.nodes if node.op == "placeholder")
    with module.graph.inserting_before(first):
        module.graph.call_function(_one_picture, (picture, module.meta["batch_note"]))
    module.recompile()


def _one_picture(pictures: torch.Tensor, note: str) -> None:
    if pictures.shape[0] != 1:
        raise ValueError(
            f"this network takes one picture at a time, and got {pictures.shape[0]}: {note}. Use batch_size: 1, or "
            "export the ONNX file with an open (dynamic) batch axis."
        )
