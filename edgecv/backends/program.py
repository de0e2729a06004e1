"""The exported program of a model, as the converters that start from torch take it.

A ``.pt2`` file written by `edgecv.optimize.export.save_program` holds one graph for all of them: batch 1,
functional ATen operators, and for int8 models ``quantized_decomposed`` quantise / dequantise nodes with the
weights still float (on the int8 grid) in front of them. How each converter wants it:

* LiteRT: as it is. ``litert_torch.convert(program.module(), sample_args, quant_config=...)`` with a static
  ``QuantConfig``; a folded program is refused ("uniform_dequantize operand #0 must be ... quantized").
* Core ML: ``fold_weights(program)`` and then ``program.run_decompositions({})``, because coremltools has no
  operator that quantises per channel.
* ONNX: written from the folded program by `edgecv.optimize.export.write_onnx`.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from edgecv.errors import ArtifactError

__all__ = ["drop_quantised_above", "fold_weights", "load_program", "seal"]

# What a tracer leaves on nodes that names files of the build machine or addresses in its memory.
_PRIVATE_METADATA = ("stack_trace", "from_node", "source_fn_stack", "original_aten", "seq_nr")


def load_program(path: Path) -> Any:
    """Read a program (``torch.export.ExportedProgram``) that `save_program` wrote.

    Raises:
        ArtifactError: the file is missing, is no such program, or was written by another torch.
    """
    import torch

    _register_operators()
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; run the export step again")
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it logs a whole traceback on top of raising
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:  # a damaged archive fails in many ways inside torch
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(
            f"{path} is not a program of torch {torch.__version__} ({reason}); export it again"
        ) from error
    finally:
        logger.setLevel(level)


def fold_weights(program: Any) -> Any:
    """The same program with its weights stored as int8, dequantised in front of each layer.

    Takes and gives a ``torch.export.ExportedProgram``; a float program, or one folded before, comes back as it is.
    """
    import torch

    _register_operators()
    quantized = torch.ops.quantized_decomposed
    targets = (quantized.quantize_per_channel.default, quantized.quantize_per_tensor.default)
    graph = program.module(check_guards=False)
    folded = 0
    for node in list(graph.graph.nodes):
        if node.target not in targets or node.args[0].op != "get_attr":
            continue
        arguments = [_constant(graph, item) if isinstance(item, torch.fx.Node) else item for item in node.args]
        name = f"{str(node.args[0].target).replace('.', '_')}_int8_{folded}"
        with torch.no_grad():
            graph.register_buffer(name, node.target(*arguments))
        with graph.graph.inserting_before(node):
            constant = graph.graph.get_attr(name)
        node.replace_all_uses_with(constant)
        graph.graph.erase_node(node)
        folded += 1
    if not folded:
        return program
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    _drop_unread_constants(graph)
    graph.recompile()
    return seal(graph, program.example_inputs[0])


def drop_quantised_above(program: Any, rank: int) -> Any:
    """The same program without quantise / dequantise pairs on tensors of more than ``rank`` axes.

    Such tensors stand between two changes of shape (windows of attention), whose values lie on the grid of
    the pair before them already: leaving them out changes no number. The program itself comes back where
    there are none.
    """
    import torch

    _register_operators()
    quantized = torch.ops.quantized_decomposed
    graph = program.module(check_guards=False)
    dropped = 0
    for node in list(graph.graph.nodes):
        if node.target != quantized.dequantize_per_tensor.default:
            continue
        stored = node.args[0]
        if getattr(stored, "target", None) != quantized.quantize_per_tensor.default:
            continue
        source = stored.args[0]
        if len(source.meta["val"].shape) <= rank:
            continue
        node.replace_all_uses_with(source)
        dropped += 1
    if not dropped:
        return program
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return seal(graph, program.example_inputs[0])


def seal(graph: Any, inputs: tuple[Any, ...]) -> Any:
    """Export a graph module of ATen operators for these example ``inputs``; all shapes become theirs.

    The program holds no path and no memory address of this machine.
    """
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.export.export(graph, inputs)
    for node in program.graph.nodes:
        for key in _PRIVATE_METADATA:
            node.meta.pop(key, None)
    return program


def _register_operators() -> None:
    """Importing this module defines the ``quantized_decomposed`` operators."""
    import torch.ao.quantization.fx._decomposed  # noqa: F401


def _constant(graph: Any, node: Any) -> Any:
    value = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def _drop_unread_constants(graph: Any) -> None:
    """Take out parameters and buffers that no node reads: the float weights behind the int8 ones."""
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for prefix, part in graph.named_modules():
        for table in (part._parameters, part._buffers):
            for name in [name for name in table if f"{prefix}.{name}".lstrip(".") not in read]:
                del table[name]
