"""From a torch module to the files that compilers take: a torch.export archive and an ONNX file."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from edgecv.backends.common import layout_of, quiet
from edgecv.backends.program import fold_weights, load_program, seal
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ModelError, ToolchainError
from edgecv.optimize.capture import capture
from edgecv.optimize.examples import Example, all_inputs

__all__ = ["export_program", "load_program", "program_specs", "save_program", "write_onnx"]

OPSET = 21


def export_program(module: torch.nn.Module, example: Example) -> ExportedProgram:
    """Trace ``module`` in evaluation mode for deployment: static shapes, no-ops gone, batch norms folded.

    ``example`` is `(1, C, H, W)` float32; of a step form (`edgecv.models.streaming`) a frame and its state. ``module``
    is not changed.

    Raises:
        ModelError: ``example`` has another batch size, or `torch.export` cannot trace the module.
    """
    first = all_inputs(example)[0]
    if first.ndim < 1 or first.shape[0] != 1:
        raise ModelError(f"the example input has shape {tuple(first.shape)}; programs are exported at batch 1")
    program: ExportedProgram = seal(capture(module, example), all_inputs(example))
    return program


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write ``program`` as a torch.export archive (``.pt2``), in one step; the same program gives the same bytes."""
    content = io.BytesIO()  # an archive written to a path would hold its file name
    with quiet(None):
        torch.export.save(program, content)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content.getbuffer())
    os.replace(partial, path)


def program_specs(program: ExportedProgram) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of ``program`` as float tensors, named as in the ONNX file.

    Of a step form they are the frame, "input", and the state, "state_in_0" and so on; the answers come before the next
    state, "state_out_0" and so on.
    """
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    inputs = [values[name] for name in program.graph_signature.user_inputs if isinstance(name, str)]
    outputs = [values[name] for name in program.graph_signature.user_outputs if isinstance(name, str)]
    states = len(inputs) - 1
    answers = len(outputs) - states
    names = (
        ["input", *_numbered("state_in", states)],
        [*(["output"] if answers == 1 else _numbered("output", answers)), *_numbered("state_out", states)],
    )
    return _specs(names[0], inputs), _specs(names[1], outputs)


def write_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    opset: int = OPSET,
    output_names: Sequence[str] = (),
    log: Path | None = None,
) -> None:
    """Write ``program`` as one ONNX file: float, or Q/DQ with int8 weights where it is quantised.

    The input is named "input"; the outputs have ``output_names`` (`edgecv.models.load.output_names`), without
    them "output", or "output_0" and so on where there are several.
    The same program gives the same bytes, and the file names nothing of this machine. What the
    exporter prints goes to the end of ``log``.

    Raises:
        ToolchainError: the exporter refuses the program.
    """
    import onnx

    inputs, outputs = program_specs(program)
    with quiet(log):
        try:
            made = torch.onnx.export(
                fold_weights(program),
                (),
                dynamo=True,
                opset_version=opset,
                external_data=False,
                verbose=False,
                input_names=[spec.name for spec in inputs],
                output_names=[spec.name for spec in outputs],
            )
            assert made is not None
            model = made.model_proto
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise ToolchainError(f"torch.onnx refuses the graph ({reason}); see {log or 'the log'}") from error
    _strip(model)
    if len(output_names) == len(outputs):
        _rename_outputs(model.graph, output_names)
    content = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(model)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _numbered(stem: str, count: int) -> list[str]:
    return [f"{stem}_{index}" for index in range(count)]


def _specs(names: list[str], values: list[Tensor]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, shape, str(value.dtype).removeprefix("torch."), layout_of(shape))
        for name, value, shape in ((name, value, tuple(value.shape)) for name, value in zip(names, values, strict=True))
    )


def _rename_outputs(graph: Any, names: Sequence[str]) -> None:
    """Give the outputs their ``names``; an inner value that has one of them gets another."""
    inputs = {value.name for value in graph.input}
    wanted = [f"{name}_out" if name in inputs else name for name in names]
    renamed = {value.name: name for value, name in zip(graph.output, wanted, strict=True)}
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    for name in wanted:
        if name in used and name not in renamed:
            fresh = f"{name}_inner"
            while fresh in used or fresh in wanted:
                fresh += "_"
            renamed[name] = fresh
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [renamed.get(name, name) for name in values]
    for value in (*graph.output, *graph.initializer):
        value.name = renamed.get(value.name, value.name)


def _strip(model: Any) -> None:
    """Take out what describes the build and not the model: documentation, stack traces, inferred shapes."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for function in model.functions:
        function.ClearField("doc_string")
        function.ClearField("metadata_props")
        for node in function.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
    graph.ClearField("value_info")
