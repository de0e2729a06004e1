"""Proof of an import: the module and ONNX Runtime on the same picture, and batches against single pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, fx
from torch.fx import GraphModule, Node

from edgecv.core.contract import InputContract
from edgecv.errors import ModelError
from edgecv.models.onnx_import.fold import session
from edgecv.models.onnx_import.graph import build_graph
from edgecv.models.onnx_import.read import OnnxFile

__all__ = ["TOLERANCE", "batch_problem", "check_same", "relative_error", "sample"]

TOLERANCE = 1e-4
"""Largest allowed difference of an output, relative to the largest value of that output."""

_FLOOR = 5e-7
"""Differences that never count: ONNX Runtime's own sigmoid is off by 1e-7 where it is nearly 0."""
_PICKED_SHARE = 1e-3


def sample(contract: InputContract, shape: Sequence[int], *, seed: int = 0) -> Tensor:
    """Random pictures `(N, C, H, W)` float32 as the contract would bring them in."""
    random = np.random.default_rng(seed)
    low, high = contract.range
    values = low + random.random(tuple(shape), dtype=np.float32) * (high - low)
    mean, std = (np.asarray(item, dtype=np.float32).reshape(-1, 1, 1) for item in (contract.mean, contract.std))
    return torch.from_numpy(((values - mean) / std).astype(np.float32))


def relative_error(found: Any, wanted: Any) -> float:
    """The largest difference of two arrays relative to the largest value; infinite where shapes differ.

    For whole numbers (places of maxima) it is 0 while no more than one in a thousand differs.
    """
    one, other = np.asarray(found), np.asarray(wanted)
    if one.shape != other.shape:
        return float("inf")
    if one.size == 0:
        return 0.0
    if not np.issubdtype(other.dtype, np.floating):
        share = float(np.mean(one != other))
        return 0.0 if share <= _PICKED_SHARE else share
    one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite on both sides
        difference = np.abs(one - other)
    same = (one == other) | (np.isnan(one) & np.isnan(other)) | (difference <= _FLOOR)
    difference = np.where(same, 0.0, difference)
    finite = np.abs(other[np.isfinite(other)])
    largest = float(finite.max()) if finite.size else 0.0
    worst = float(np.max(np.nan_to_num(difference, nan=np.inf, posinf=np.inf)))
    return worst / largest if largest > 0 else worst


def check_same(file: OnnxFile, module: GraphModule, picture: Tensor) -> float:
    """The largest relative error of the module's outputs to ONNX Runtime's on ``picture`` (batch 1).

    Raises:
        ModelError: it is above `TOLERANCE` (the first ONNX node that differs is named), or ONNX Runtime
            refuses the file.
    """
    feeds = {file.input_name: np.ascontiguousarray(picture.permute(0, 2, 3, 1) if file.channels_last else picture)}
    try:
        wanted = session(file.model).run(None, feeds)
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        raise ModelError(
            f"{file.path}: ONNX Runtime refuses the file ({str(error).strip().splitlines()[0][:300]}); export it again"
        ) from error
    with torch.no_grad():
        found = module(picture)
    results = [found] if isinstance(found, Tensor) else list(found)
    errors = [relative_error(one.numpy(), other) for one, other in zip(results, wanted, strict=True)]
    if max(errors) <= TOLERANCE:
        return max(errors)
    worst = int(np.argmax(errors))
    culprit = _first_different(file, picture, feeds)
    raise ModelError(
        f"{file.path}: output {file.output_names[worst]!r} differs from ONNX Runtime's by {errors[worst]:.2g} "
        f"(relative error; allowed is {TOLERANCE:g}){culprit}. This is a defect of the import; please report it with "
        "the model."
    )


def batch_problem(module: GraphModule, pictures: Tensor) -> str:
    """Why the module gives other results on a batch than on its pictures one by one; "" where it does not."""
    with torch.no_grad():
        single = [_listed(module(picture)) for picture in pictures.split(1)]
        try:
            together = _listed(module(pictures))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            return f"a batch fails ({(str(error).strip() or type(error).__name__).splitlines()[0][:200]})"
    for index, result in enumerate(together):
        wanted = torch.cat([row[index] for row in single]) if single[0][index].ndim else result
        if relative_error(result.numpy(), wanted.numpy()) > TOLERANCE:
            return f"output {index} mixes the pictures of a batch"
    return ""


def _listed(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _first_different(file: OnnxFile, picture: Tensor, feeds: Mapping[str, Any]) -> str:
    """Compare all that both compute, in the file's order, with the spelled-out forms as they stand in the file."""
    module, names, _ = build_graph(file)
    model = ModelProto()
    model.CopyFrom(file.model)
    made = {name: node for node in file.model.graph.node for name in node.output if name in names}
    have = {item.name for item in model.graph.output}
    for name in made:
        if name not in have:
            model.graph.output.add().name = name
    try:
        outputs = [item.name for item in model.graph.output]
        wanted = dict(zip(outputs, session(model, plain=True).run(None, dict(feeds)), strict=True))
    except Exception:  # noqa: BLE001 - only the search for the place fails; the error itself is being raised
        return ""
    nodes = [names[name] for name in made]
    with torch.no_grad():
        values = _with_outputs(module, nodes)(picture)
    for (name, node), value in zip(made.items(), values, strict=True):
        if isinstance(value, Tensor) and relative_error(value.numpy(), wanted[name]) > TOLERANCE:
            return f"; the first node that differs is {node.name or name!r} ({node.op_type})"
    return "; an activation or norm that is spelled out in the file was put together wrongly"


def _with_outputs(module: GraphModule, nodes: Sequence[Node]) -> GraphModule:
    """The same network, giving the results of ``nodes``."""
    copied = fx.Graph()
    twins: dict[Node, Node] = {}
    copied.graph_copy(module.graph, twins)
    copied.output(tuple(twins[node] for node in nodes))
    return GraphModule(module, copied)
