"""Which layers of a torch module make its outputs."""

from __future__ import annotations

import warnings
from typing import Any

from edgecv.errors import ModelError


def output_layers(module: Any, *, kind: str) -> list[str]:
    """Names of the Linear and Conv2d submodules of a torch ``module`` that its outputs reach first.

    The graph is followed back from the output; where the module cannot be traced, the last Linear or
    Conv2d in the order of definition is taken. ``kind`` names what these layers make, for the error.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    import torch

    names = [name for name, child in module.named_modules() if isinstance(child, torch.nn.Linear | torch.nn.Conv2d)]
    if not names:
        raise ModelError(f"{type(module).__name__} has no Linear and no Conv2d layer, so no {kind} to protect")
    return _traced_heads(module, set(names)) or names[-1:]


def _traced_heads(module: Any, names: set[str]) -> list[str]:
    """The layers of ``names`` that the output reaches without passing another one; empty where tracing fails."""
    import torch.fx

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes = torch.fx.symbolic_trace(module).graph.nodes
    except Exception:  # noqa: BLE001 - it runs the user's own forward on proxies, which can raise anything
        return []
    waiting = [node for node in nodes if node.op == "output"]
    seen = set(waiting)
    heads = set()
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source.op == "call_module" and source.target in names:
                heads.add(str(source.target))
            elif source not in seen:
                seen.add(source)
                waiting.append(source)
    return sorted(heads)
