"""What is measured: a loaded engine with everything that turns its arrays into answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.protocols import Engine, Family
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Array, FloatArray, TensorSpec
from edgecv.errors import ModelError
from edgecv.vision.image import Image, input_problems
from edgecv.vision.preprocessor import Preprocessor


@dataclass(frozen=True)
class Subject:
    """A model file under measurement.

    ``input`` and ``outputs`` are the tensors as the manifest describes them (an engine may not know its
    layouts); ``file_sha256`` is the hash of the very file that ``engine`` was loaded from. The ``preprocessor``
    keeps scratch pictures, so that one thread at a time may use it.
    """

    engine: Engine
    spec: FamilySpec
    contract: InputContract
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    file_sha256: str = ""
    threads: int = 0
    preprocessor: Preprocessor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "preprocessor", Preprocessor(self.contract, self.input))

    @property
    def family(self) -> Family:
        """The family's module."""
        return families.get(self.spec.kind)

    def input_buffer(self) -> Array:
        """A new input array for `run`."""
        return np.zeros(self.input.shape, dtype=self.input.dtype)

    def run(self, image: Image, buffer: Array) -> list[FloatArray]:
        """One inference of a picture through ``buffer`` (of `input_buffer`): its outputs as float32, batch axis kept.

        Raises:
            DataError: the picture cannot be used.
            EdgecvError: the engine failed.
        """
        self.preprocessor.into(image, buffer)
        return self.dequantize(self.engine.run([buffer]))

    def dequantize(self, stored: list[Array]) -> list[FloatArray]:
        """What the engine gave, as real values."""
        return [spec.dequantize(array) for spec, array in zip(self.outputs, stored, strict=True)]

    def decode(self, outputs: list[FloatArray], *, picture: tuple[int, int] | None = None) -> Any:
        """Outputs of one picture of (height, width) ``picture`` -> the family's result, in that picture's pixels."""
        return self.family.decode(outputs, self.spec, self.contract, picture=picture)


def subject(
    engine: Engine,
    *,
    spec: FamilySpec,
    contract: InputContract,
    inputs: tuple[TensorSpec, ...] | None = None,
    outputs: tuple[TensorSpec, ...] | None = None,
    file_sha256: str = "",
    threads: int = 0,
) -> Subject:
    """Put a subject together, with the engine's own tensors where none are given, and check that it fits.

    Raises:
        ModelError: the engine's tensors do not fit the contract or the family; every problem is listed.
    """
    takes, gives = inputs or engine.inputs, outputs or engine.outputs
    found = input_problems(contract, takes) + families.get(spec.kind).problems(spec, gives)
    if found:
        raise ModelError("\n".join(found))
    return Subject(engine, spec, contract, takes[0], gives, file_sha256, threads)
