"""Unwrapping what forwards give."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgecv.models.outputs import TensorOutputs, tensors_of, unwrapped

ONE, TWO = torch.ones(1), torch.full((2,), 2.0)


@dataclass
class Result:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


class Fixed(nn.Module):
    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.outputs


def test_tensors_are_found_in_order_at_any_depth() -> None:
    assert tensors_of(ONE) == (ONE,)
    assert tensors_of(OrderedDict(out=ONE, aux=[TWO, None])) == (ONE, TWO)
    assert tensors_of(Result(TWO)) == (TWO,)
    assert tensors_of((ONE, {"more": (TWO,)})) == (ONE, TWO)
    assert tensors_of("text") == ()


def test_one_tensor_comes_alone_and_several_as_a_tuple() -> None:
    assert TensorOutputs(Fixed({"out": ONE}))(ONE) is ONE
    assert TensorOutputs(Fixed([ONE, TWO]))(ONE) == (ONE, TWO)


def test_the_network_inside_is_reached() -> None:
    inner = nn.Linear(1, 1)
    assert unwrapped(TensorOutputs(inner)) is inner
    assert unwrapped(inner) is inner
