"""From a torch module to the float graph that quantisation and export work on."""

from __future__ import annotations

import warnings

import torch
from torch.fx import GraphModule

from edgecv.errors import ModelError
from edgecv.models.streaming import StepForm
from edgecv.optimize.constants import fold_constants
from edgecv.optimize.examples import Example, all_inputs
from edgecv.optimize.fold import fold_batch_norms, spell_global_pools
from edgecv.optimize.graph import remove_no_ops
from edgecv.optimize.pools import spell_uneven_pools

__all__ = ["capture"]

MAX_BATCH = 65536


def capture(module: torch.nn.Module, example: Example, *, dynamic_batch: bool = False) -> GraphModule:
    """Trace ``module`` in evaluation mode into a functional graph without no-ops and batch norms.

    What depends on no input is computed once, unless the graph is to be trained (``dynamic_batch``).

    ``example`` is `(N, C, H, W)` float32, or several inputs; its shape becomes the graph's own, but for the batch axis
    where ``dynamic_batch`` is set (training; ``N`` must then be 2 or more). ``module`` is not changed;
    the graph has copies of its weights.

    Raises:
        ModelError: `torch.export` cannot trace the module; the message holds its reason.
    """
    inputs = all_inputs(example)
    shapes = torch.export.ShapesCollection()
    for item in inputs if dynamic_batch else ():
        shapes[item] = {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}
    was_training = [name for name, part in module.named_modules() if part.training]
    module.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            program = torch.export.export(module, inputs, dynamic_shapes=shapes if dynamic_batch else None)
            graph = program.run_decompositions({}).module(check_guards=False)
    except Exception as error:
        raise ModelError(
            f"torch.export cannot trace {type(module).__name__} on an input of shape "
            f"{tuple(inputs[0].shape)}: {error}. "
            "Data-dependent control flow and shapes must leave the forward method (move post-processing out of it)."
        ) from error
    finally:
        for name in was_training:
            module.get_submodule(name).training = True
    assert isinstance(graph, GraphModule)
    _own_constants(graph)
    if isinstance(module, StepForm):
        _own_names(graph)
    remove_no_ops(graph)
    fold_batch_norms(graph)
    spell_global_pools(graph)
    spell_uneven_pools(graph)
    if not dynamic_batch:
        fold_constants(graph)
    return graph


def _own_constants(graph: GraphModule) -> None:
    """Give the graph copies of all parameters and buffers, so that passes leave the user's module alone."""
    with torch.no_grad():
        for part in graph.modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                part.register_parameter(name, torch.nn.Parameter(parameter.detach().clone(), parameter.requires_grad))
            for name, buffer in list(part.named_buffers(recurse=False)):
                part.register_buffer(name, buffer.detach().clone())


def _own_names(graph: GraphModule) -> None:
    """Let the nodes of a step form name their modules as its network does: the form's only part is that."""
    for node in graph.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        named = {key: (path.removeprefix("module").removeprefix("."), kind) for key, (path, kind) in stack.items()}
        node.meta["nn_module_stack"] = named
