"""The state of a network that streams: what one run gives and the next one takes, so that a frame costs one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecv.core.tensor import TensorSpec


@dataclass(frozen=True)
class StateTensor:
    """One tensor of a state: the ``output`` of a run goes into the ``input`` of the next as it is.

    At the start of a video it is filled with ``start``, which stands for 0. Where the scales of the two differ (the
    artifact's inputs and outputs tell them), the values have to be brought from one to the other; files that edgecv
    builds have the same.
    """

    input: str
    output: str
    shape: tuple[int, ...]
    dtype: str
    start: int = 0


def split_state(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The outputs that are answers, and the state as it goes in and as it comes out.

    The frame is the first input, the state the others; it comes out last, in the same order.
    """
    answers = len(outputs) - len(inputs) + 1
    return tuple(outputs[:answers]), tuple(inputs[1:]), tuple(outputs[answers:])


def state_of(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> tuple[StateTensor, ...]:
    """The state of a network with these tensors; () where it takes one input."""
    _, before, after = split_state(inputs, outputs)
    return tuple(
        StateTensor(one.name, other.name, one.shape, one.dtype, one.quantization.zero_point if one.quantization else 0)
        for one, other in zip(before, after, strict=True)
    )


def state_problems(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> list[str]:
    """Why tensors are not those of a network that streams, in words; empty when they are."""
    if len(inputs) < 2 or len(outputs) < len(inputs):
        return [
            f"a network that streams takes a frame and a state and gives answers and the next state; this one has "
            f"{len(inputs)} inputs and {len(outputs)} outputs"
        ]
    _, before, after = split_state(inputs, outputs)
    return [
        f"state {one.name!r} has shape {one.shape}, and {other.name!r}, which follows it, {other.shape}; both must be "
        "the same"
        for one, other in zip(before, after, strict=True)
        if one.shape != other.shape
    ]
