"""Reading trained weights without running anything, and putting them into a network."""

from __future__ import annotations

import difflib
import os
import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecv.core.recipe import Weights
from edgecv.errors import ArtifactError, ModelError
from edgecv.models.fetch import fetch_weights

__all__ = ["apply_state_dict", "fetch_weights", "load_module_state", "read_state_dict", "save_module_state"]

WRAPPER_KEYS = ("state_dict", "model", "model_state_dict")
"""Entries under which training scripts keep the weights; looked for where ``key`` is not given."""

_SHOWN = 10


def read_state_dict(path: Path, weights: Weights) -> dict[str, torch.Tensor]:
    """The tensors of a ``.safetensors`` file or a PyTorch state dict, by name, on the CPU.

    A PyTorch file is read with ``weights_only``: it can hold tensors and plain values, never code.
    ``weights.key`` names the entry that holds them; without it the one of "state_dict", "model" and
    "model_state_dict" that is a dictionary of tensors is taken, where exactly one is.
    ``weights.strip_prefix`` is cut from every name that starts with it.

    Raises:
        ArtifactError: the file is damaged, or holds code.
        ModelError: the entry is not there, or there are no tensors, or no name has the prefix.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" or _is_safetensors(path) else _read_pickle(path)
    state = _entry(content, weights.key, path)
    prefix = weights.strip_prefix
    if prefix:
        if not any(name.startswith(prefix) for name in state):
            raise ModelError(f"strip_prefix is {prefix!r} and no name in {path} has it: {_few(state)}")
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def apply_state_dict(module: nn.Module, state: Mapping[str, torch.Tensor], *, strict: bool) -> None:
    """Copy ``state`` into ``module``. With ``strict`` every name must be in both; shapes must always agree.

    Raises:
        ModelError: with the names that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    # Files from before 2018 lack these counters; batch norm does without them.
    missing = [name for name in own if name not in state and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    other = [name for name in state if name in own and state[name].shape != own[name].shape]
    if not other and not ((missing or unexpected) and strict) and len(unexpected) < len(state):
        with torch.no_grad():
            module.load_state_dict(dict(state), strict=strict)
        return
    lines = [f"the weights do not fit the network ({len(own)} tensors; the file has {len(state)}):"]
    if missing:
        lines.append(f"  missing in the file ({len(missing)}): {_few(missing)}")
    if unexpected:
        lines.append(f"  not in the network ({len(unexpected)}): {_few(_with_hints(unexpected, own))}")
    if other:
        pairs = [f"{name} is {_shape(state[name])} in the file, {_shape(own[name])} here" for name in other]
        lines.append(f"  of another shape ({len(other)}): {_few(pairs)}")
    lines.append(_advice(own, unexpected, other))
    raise ModelError("\n".join(lines))


def save_module_state(path: Path, module: nn.Module) -> None:
    """Write the module's parameters and buffers as safetensors (tensors that share memory once), in one step."""
    from safetensors.torch import save_model

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_model(module, str(partial))
    os.replace(partial, path)


def load_module_state(path: Path, module: nn.Module) -> None:
    """Fill ``module`` with what `save_module_state` wrote for a module of the same shapes.

    Raises:
        ArtifactError: the file is missing, damaged, or of another module.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(module, str(path))
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise ArtifactError(f"{path} does not hold the weights of this network: {_first_line(error)}") from error


def _is_safetensors(path: Path) -> bool:
    """A safetensors file starts with the length of its JSON header (8 bytes) and a brace."""
    with path.open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} is not a whole safetensors file ({_first_line(error)}); get it again from its source"
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path} is refused: it is a pickle that holds more than tensors, and loading it would run code from the "
            f"file ({_first_line(error)}). Save model.state_dict() in its place, best as .safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is neither a safetensors file nor a PyTorch state dict, or it is damaged ({_first_line(error)}); "
            "get it again from its source"
        ) from error


def _entry(content: Any, key: str | None, path: Path) -> dict[str, torch.Tensor]:
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}; a dictionary of tensors is needed")
    if key is not None:
        if key not in content:
            raise ModelError(f"model.weights.key is {key!r} and {path} has the entries {_few(content)}")
        found = _tensors(content[key])
        where = f"entry {key!r} of {path}"
    else:
        wrapped = [name for name in WRAPPER_KEYS if _tensors(content.get(name))]
        found = _tensors(content[wrapped[0]]) if len(wrapped) == 1 else _tensors(content)
        where = str(path)
        if len(wrapped) > 1:
            raise ModelError(
                f"{path} has several sets of weights ({', '.join(wrapped)}); name one in model.weights.key"
            )
    if not found:
        raise ModelError(f"{where} holds no tensors; name the entry that does in model.weights.key: {_few(content)}")
    return found


def _tensors(value: Any) -> dict[str, torch.Tensor]:
    if not isinstance(value, Mapping):
        return {}
    return {str(name): item for name, item in value.items() if isinstance(item, torch.Tensor)}


def _with_hints(names: Sequence[str], own: Mapping[str, Any]) -> list[str]:
    hinted = []
    for name in names[:_SHOWN]:
        close = difflib.get_close_matches(name, own, n=1, cutoff=0.8)
        hinted.append(f"{name} (like {close[0]})" if close else name)
    return [*hinted, *names[_SHOWN:]]


def _advice(own: Mapping[str, Any], unexpected: Sequence[str], other: Sequence[str]) -> str:
    for name in unexpected[:_SHOWN]:
        parts = name.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in own:
                return f"Set model.weights.strip_prefix to {'.'.join(parts[:cut]) + '.'!r}."
    if other:
        return "Check the number of labels and model.options, or use the weights of this network."
    return "Use the weights of this network; model.weights.strict: false takes what fits."


def _few(names: Iterable[Any]) -> str:
    shown = [str(name) for name in names]
    rest = f", and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + rest


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(str(length) for length in tensor.shape) or "scalar"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
