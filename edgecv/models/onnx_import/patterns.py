"""Activations and norms that exporters spelled out, found and put back as the modules that they were."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

__all__ = ["restore_modules"]

_SQRT_HALF = math.sqrt(0.5)


def restore_modules(module: GraphModule) -> int:
    """Replace the spelled-out forms in place; returns how many.

    The nodes hold their shape at batch 1 as ``meta["shape"]``."""
    found = 0
    found += _drop_expansions(module)
    for rule in (_every_nth_channel, _linear_bias, _hard_sigmoid, _product, _gelu, _layer_norm):
        for node in list(module.graph.nodes):
            if node.op == "call_function" and node.users and rule(module, node):
                found += 1
    if found:
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.graph.lint()
        module.recompile()
    return found


def _replace(module: GraphModule, node: Node, made: nn.Module, source: Node, *, stem: str) -> bool:
    name, number = stem, 0
    while hasattr(module, name):
        number += 1
        name = f"{stem}_{number}"
    module.add_submodule(name, made.eval())
    with module.graph.inserting_before(node):
        call = module.graph.call_module(name, (source,))
    call.meta["shape"] = node.meta["shape"]
    node.replace_all_uses_with(call)
    _erase(module, node)
    return True


def _erase(module: GraphModule, node: Node) -> None:
    """Take out a node that nothing reads, and what only it has read."""
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if item.users or item.op in ("placeholder", "output"):
            continue
        waiting += item.all_input_nodes
        if item in set(module.graph.nodes):
            module.graph.erase_node(item)


def _is(node: Any, *targets: Any) -> bool:
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def _layer(module: GraphModule, node: Any, kind: type[nn.Module]) -> nn.Module | None:
    if not isinstance(node, Node) or node.op != "call_module":
        return None
    found = module.get_submodule(str(node.target))
    return found if isinstance(found, kind) else None


def _constant(module: GraphModule, item: Any) -> Tensor | None:
    """A plain number or a buffer."""
    if isinstance(item, (int, float)) and not isinstance(item, bool):
        return torch.tensor(float(item))
    if isinstance(item, Node) and item.op == "get_attr":
        value = module.get_buffer(str(item.target))
        return value if value.is_floating_point() else None
    return None


def _number(module: GraphModule, item: Any) -> float | None:
    value = _constant(module, item)
    return float(value.reshape(-1)[0]) if value is not None and value.numel() == 1 else None


def _with_number(module: GraphModule, node: Any, target: Any, number: float) -> Node | None:
    """The other operand of ``node``, where it is ``target`` with ``number`` on either side."""
    if not _is(node, target) or len(node.args) != 2:
        return None
    for one, other in (node.args, node.args[::-1]):
        value = _number(module, other)
        if isinstance(one, Node) and value is not None and math.isclose(value, number, rel_tol=1e-4):
            return one
    return None


def _linear_bias(module: GraphModule, node: Node) -> bool:
    """``linear(x) + constant`` -> the linear layer's bias."""
    if not _is(node, operator.add):
        return False
    for one, other in (node.args, node.args[::-1]):
        layer, bias = _layer(module, one, nn.Linear), _constant(module, other)
        if not isinstance(layer, nn.Linear) or bias is None or not isinstance(one, Node):
            continue
        calls = [item for item in module.graph.nodes if item.op == "call_module" and item.target == one.target]
        fits = getattr(layer, "bias", None) is None and bias.numel() in (1, layer.out_features)
        fits = fits and bias.shape[-1:].numel() == bias.numel() and bias.ndim <= len(one.meta["shape"])
        if fits and len(calls) == 1 and len(one.users) == 1:
            layer.bias = nn.Parameter(bias.detach().reshape(-1).expand(layer.out_features).clone())
            node.replace_all_uses_with(one)
            module.graph.erase_node(node)
            return True
    return False


def _drop_expansions(module: GraphModule) -> int:
    """Expansions that arithmetic does by itself: ``mask.expand(...) * x`` -> ``mask * x``; returns how many."""
    dropped = 0
    for node in list(module.graph.nodes):
        if node.op != "call_method" or node.target != "expand" or not node.users:
            continue
        source: Any = node.args[0]
        if len(source.meta["shape"]) == len(node.meta["shape"]) and all(_spreads(user, node) for user in node.users):
            node.replace_all_uses_with(source)
            module.graph.erase_node(node)
            dropped += 1
    return dropped


def _spreads(user: Node, node: Node) -> bool:
    """Whether ``user`` is arithmetic of ``node`` and one other tensor of the same shape."""
    if not _is(user, operator.add, operator.sub, operator.mul, operator.truediv):
        return False
    others = [item for item in user.args if item is not node]
    return len(others) == 1 and isinstance(others[0], Node) and others[0].meta.get("shape") == node.meta["shape"]


def _every_nth_channel(module: GraphModule, node: Node) -> bool:
    """The two halves of a channel shuffle (ShuffleNet v2): reshape, transpose, reshape, pick -> ``x[:, k::n]``.

    Proven on numbered elements, at batch 1 and 2. Without it pruning follows every element of the picture.
    """
    if not _is(node, torch.select):
        return False
    chain, source = [node], node.args[0]
    while _is(source, torch.reshape, torch.flatten, torch.unflatten, torch.permute) and len(chain) < 5:
        chain.append(source)  # type: ignore[arg-type]
        source = source.args[0]  # type: ignore[union-attr]
    if len(chain) < 2 or not isinstance(source, Node):
        return False
    before, after = source.meta.get("shape", ()), node.meta["shape"]
    if len(before) != 4 or len(after) != 4 or before[2:] != after[2:] or before[1] % after[1]:
        return False
    step, start = before[1] // after[1], 0
    for batch in (1, 2):
        numbered = torch.arange(batch * math.prod(before[1:])).reshape(batch, *before[1:])
        value = numbered
        for item in reversed(chain):
            value = item.target(value, *item.args[1:], **item.kwargs)  # type: ignore[operator]
        start = int(value.flatten()[0]) // math.prod(before[2:])
        if start >= step or not torch.equal(value, numbered[:, start::step]):
            return False
    with module.graph.inserting_before(node):
        picked = module.graph.call_function(operator.getitem, (source, (slice(None), slice(start, None, step))))
    picked.meta["shape"] = after
    node.replace_all_uses_with(picked)
    _erase(module, node)
    return True


def _hard_sigmoid(module: GraphModule, node: Node) -> bool:
    """``relu6(x + 3) / 6`` -> Hardsigmoid."""
    inner = _sixth(module, node)
    source = _shifted_relu6(module, inner)
    if source is None:
        return False
    return _replace(module, node, nn.Hardsigmoid(), source, stem="hardsigmoid")


def _sixth(module: GraphModule, node: Any) -> Node | None:
    if _is(node, operator.truediv) and isinstance(node.args[0], Node):
        return node.args[0] if _number(module, node.args[1]) == 6.0 else None
    return _with_number(module, node, operator.mul, 1 / 6)


def _shifted_relu6(module: GraphModule, node: Any) -> Node | None:
    if _layer(module, node, nn.ReLU6) is None:
        return None
    return _with_number(module, node.args[0], operator.add, 3.0)


def _product(module: GraphModule, node: Node) -> bool:
    """``x * sigmoid(x)`` -> SiLU, with a hard sigmoid Hardswish, with tanh(softplus(x)) Mish."""
    inner = _sixth(module, node)
    if _is(inner, operator.mul):
        assert inner is not None
        for one, other in (inner.args, inner.args[::-1]):
            if isinstance(one, Node) and _shifted_relu6(module, other) is one:
                return _replace(module, node, nn.Hardswish(), one, stem="hardswish")
    if not _is(node, operator.mul):
        return False
    for one, other in (node.args, node.args[::-1]):
        if not isinstance(one, Node) or not isinstance(other, Node) or not other.args:
            continue
        if _is(other, torch.sigmoid) and other.args[0] is one:
            return _replace(module, node, nn.SiLU(), one, stem="silu")
        if _layer(module, other, nn.Hardsigmoid) is not None and other.args[0] is one:
            return _replace(module, node, nn.Hardswish(), one, stem="hardswish")
        if _is(other, torch.tanh) and _is(other.args[0], F.softplus) and other.args[0].args[0] is one:  # type: ignore[union-attr]
            return _replace(module, node, nn.Mish(), one, stem="mish")
    return False


def _gelu(module: GraphModule, node: Node) -> bool:
    """``x * 0.5 * (1 + erf(x / sqrt(2)))`` in the orders that exporters write it."""
    if not _is(node, operator.mul):
        return False
    half = _with_number(module, node, operator.mul, 0.5)
    if half is not None and _is(half, operator.mul):
        for one, other in (half.args, half.args[::-1]):
            if isinstance(one, Node) and _one_plus_erf(module, other) is one:
                return _replace(module, node, nn.GELU(), one, stem="gelu")
    for one, other in (node.args, node.args[::-1]):
        source = _with_number(module, one, operator.mul, 0.5)
        if source is not None and _one_plus_erf(module, other) is source:
            return _replace(module, node, nn.GELU(), source, stem="gelu")
        inner = _with_number(module, other, operator.mul, 0.5)
        if isinstance(one, Node) and inner is not None and _one_plus_erf(module, inner) is one:
            return _replace(module, node, nn.GELU(), one, stem="gelu")
    return False


def _one_plus_erf(module: GraphModule, node: Any) -> Node | None:
    """x, where ``node`` is ``1 + erf(x / sqrt(2))``."""
    error = _with_number(module, node, operator.add, 1.0)
    if error is None or not _is(error, torch.erf):
        return None
    scaled: Any = error.args[0]
    if _is(scaled, operator.truediv):
        number = _number(module, scaled.args[1])
        return scaled.args[0] if number is not None and math.isclose(number, math.sqrt(2), rel_tol=1e-4) else None
    return _with_number(module, scaled, operator.mul, _SQRT_HALF)


def _layer_norm(module: GraphModule, node: Node) -> bool:
    """``(x - mean(x)) / sqrt(mean((x - mean(x))**2) + eps) * gamma + beta`` over the last axis."""
    if not _is(node, operator.add):
        return False
    for scaled, beta_item in (node.args, node.args[::-1]):
        beta = _constant(module, beta_item)
        if beta is None or not _is(scaled, operator.mul):
            continue
        for divided, gamma_item in (scaled.args, scaled.args[::-1]):  # type: ignore[union-attr]
            gamma = _constant(module, gamma_item)
            found = _normalised(module, divided) if gamma is not None else None
            if found is None or gamma is None:
                continue
            source, epsilon = found
            width = source.meta["shape"][-1]
            if gamma.numel() != width or beta.numel() != width:
                continue
            norm = nn.LayerNorm(width, eps=epsilon)
            norm.weight = nn.Parameter(gamma.detach().reshape(-1).clone())
            norm.bias = nn.Parameter(beta.detach().reshape(-1).clone())
            return _replace(module, node, norm, source, stem=_stem(gamma_item, "norm"))
    return False


def _stem(item: Any, default: str) -> str:
    name = str(item.target) if isinstance(item, Node) else default
    return name.removesuffix("_weight").removesuffix("_constant") or default


def _normalised(module: GraphModule, node: Any) -> tuple[Node, float] | None:
    """x and epsilon, where ``node`` is x without its mean, divided by its deviation, over the last axis."""
    if not _is(node, operator.truediv) or not _is(node.args[1], torch.sqrt):
        return None
    centered = node.args[0]
    if not _is(centered, operator.sub) or not _is_mean_of(centered.args[1], centered.args[0]):
        return None
    shifted: Any = node.args[1].args[0]
    if not _is(shifted, operator.add):
        return None
    for variance, item in (shifted.args, shifted.args[::-1]):
        epsilon = _number(module, item)
        if epsilon is None or not _is(variance, torch.mean):
            continue
        square: Any = variance.args[0]
        is_square = _is(square, torch.pow) and square.args[0] is centered and square.args[1] == 2
        is_product = _is(square, operator.mul) and square.args == (centered, centered)
        if (is_square or is_product) and _is_mean_of(variance, square):
            return centered.args[0], epsilon
    return None


def _is_mean_of(node: Any, source: Any) -> bool:
    if not _is(node, torch.mean) or node.args[0] is not source or not isinstance(source, Node):
        return False
    return tuple(node.args[1]) == (len(source.meta["shape"]) - 1,) and bool(node.args[2])
