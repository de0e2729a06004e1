"""What travels along the edges of the graph while it is imported: constants as arrays, tensors as fx nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from edgecv.errors import ModelError

if TYPE_CHECKING:
    from edgecv.models.onnx_import.builder import Builder

__all__ = ["Call", "Constant", "Converter", "Value", "ints"]

Constant = NDArray[Any]
Value = Union[Node, Constant]


@dataclass(frozen=True)
class Call:
    """One ONNX node that is to become torch: its operands are found, its attributes plain Python values.

    ``inputs`` has None where an optional input is left out; ``names`` are the inputs' ONNX names.
    """

    name: str
    op: str
    inputs: tuple[Value | None, ...]
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    attributes: dict[str, Any] = field(default_factory=dict)

    def given(self, index: int) -> Value | None:
        """Input ``index``, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int) -> Value:
        """Input ``index``, which must be there."""
        value = self.given(index)
        if value is None:
            raise self.refused(f"input {index} is missing")
        return value

    def constant(self, index: int, what: str) -> Constant | None:
        """Input ``index`` as numbers, None where it is left out; ``what`` names it in the message.

        Raises:
            ModelError: it depends on the picture.
        """
        value = self.given(index)
        if value is None or isinstance(value, np.ndarray):
            return value
        raise self.refused(
            f"its {what} ({self.names[index]!r}) depends on the picture; only fixed values are supported"
        )

    def numbers(self, index: int, attribute: str) -> list[int] | None:
        """Integers that old opsets keep in ``attribute`` and new ones in input ``index``; None where neither is."""
        if attribute in self.attributes:
            return ints(self.attributes[attribute])
        value = self.constant(index, attribute)
        return None if value is None else ints(value)

    def get(self, attribute: str, default: Any) -> Any:
        """An attribute's value, or its default."""
        return self.attributes.get(attribute, default)

    def refused(self, reason: str) -> ModelError:
        """The error to raise where this node cannot become torch."""
        return ModelError(f"{self.op} of node {self.name!r}: {reason}")


Converter = Callable[["Builder", Call], Union[Value, Sequence[Value]]]


def ints(values: Any) -> list[int]:
    """Plain integers of an array, a sequence or a single number."""
    return [int(item) for item in np.asarray(values).reshape(-1)]
