"""A recipe's model, ready: built, filled with its weights, and checked against its family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.progress import Progress
from edgecv.core.recipe import FamilySpec, ModelSpec
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ModelError
from edgecv.models.clips import for_clips
from edgecv.models.outputs import TensorOutputs, tensors_of, unwrapped
from edgecv.models.sources import build_module, split_source
from edgecv.models.streaming import check_streams
from edgecv.models.weights import apply_state_dict, fetch_weights, read_state_dict

__all__ = ["build_model", "check_outputs", "load_model", "output_names", "output_specs"]


def load_model(
    spec: ModelSpec,
    *,
    family: FamilySpec,
    base: Path,
    cache: Path,
    seed: int,
    progress: Progress | None = None,
) -> nn.Module:
    """The network of ``spec`` in evaluation mode: `(N, C, H, W)` float32 -> a tensor, or a tuple of tensors.

    ``seed`` fixes random weights (the caller's random state stays as it was). ``base`` is the recipe's
    folder, ``cache`` where downloads are kept. An ``onnx:`` source comes with the file's own weights.

    Raises:
        ModelError: it cannot be built, its weights do not fit, it does not take an input of the
            contract's size, or its outputs do not fit the family.
        ToolchainError: a library is missing, or a download failed.
        ArtifactError: the weights file is damaged or not trusted.
    """
    module = build_model(spec, family=family, base=base, seed=seed)
    if spec.weights is not None:
        path = fetch_weights(spec.weights, base=base, cache=cache, progress=progress)
        inner, state = unwrapped(module), read_state_dict(path, spec.weights)
        # A network around another one may take that one's weights, under the names that they have there.
        adapt = getattr(inner, "adapt_state", None)
        apply_state_dict(inner, state if adapt is None else adapt(state), strict=spec.weights.strict)
    check_outputs(output_specs(_forward(module, spec)), family=family, source=spec.source)
    return module


def build_model(spec: ModelSpec, *, family: FamilySpec, base: Path, seed: int) -> nn.Module:
    """The network of `load_model` with random weights (``onnx:``: the file's), whatever ``spec.weights`` says.

    Nothing is fetched.

    Raises:
        ModelError: it cannot be built, or does not take an input of the contract's size.
        ToolchainError: a library is missing.
    """
    num_classes = len(family.labels) + (1 if family.background else 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_module(spec, num_classes=num_classes, base=base).eval()
        module = for_clips(module, spec.input)
        if spec.input.streams:
            check_streams(module)
    if isinstance(module, TensorOutputs) or _is_plain(_forward(module, spec)):
        return module
    return TensorOutputs(module).eval()


def output_names(spec: ModelSpec, *, base: Path) -> tuple[str, ...]:
    """The names that an ``onnx:`` file has for its outputs, in their order; () where the source names none.

    Raises:
        ModelError: the file cannot be read.
    """
    kind, name = split_source(spec.source)
    if kind != "onnx":
        return ()
    from edgecv.models.onnx_import.read import read_onnx

    return read_onnx(base / name, spec.input).output_names


def output_specs(outputs: Any) -> tuple[TensorSpec, ...]:
    """Name, shape and type of every tensor that a module gave."""
    return tuple(
        TensorSpec(f"output{index}", tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for index, tensor in enumerate(tensors_of(outputs))
    )


def check_outputs(outputs: Sequence[TensorSpec], *, family: FamilySpec, source: str) -> None:
    """Hold outputs (batch 1) against the family.

    Raises:
        ModelError: they do not fit, with every reason.
    """
    problems = families.get(family.kind).problems(family, outputs)
    if problems:
        raise ModelError(f"{source} does not fit the family {family.kind}: " + "; ".join(problems))


def _forward(module: nn.Module, spec: ModelSpec) -> Any:
    inputs = _zeros(spec.input)
    try:
        with torch.no_grad():
            outputs = module(inputs)
    except Exception as error:  # the user's own forward runs here and can raise anything
        shape = "x".join(str(length) for length in inputs.shape)
        raise ModelError(
            f"{spec.source} does not take an input of {shape} (batch, channels, height, width): "
            f"{type(error).__name__}: {error}. Check model.input.size and model.input.color."
        ) from error
    if not tensors_of(outputs):
        raise ModelError(
            f"{spec.source} gave a {type(outputs).__name__} without tensors; its forward must give tensors"
        )
    return outputs


def _zeros(contract: InputContract) -> torch.Tensor:
    return torch.zeros(1, contract.planes, *contract.size)


def _is_plain(outputs: Any) -> bool:
    return isinstance(outputs, torch.Tensor) or (
        type(outputs) is tuple and len(outputs) > 1 and all(isinstance(item, torch.Tensor) for item in outputs)
    )
