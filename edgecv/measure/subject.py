"""What is measured: a loaded engine with everything that turns its arrays into answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.protocols import Engine, Family
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Array, FloatArray, TensorSpec
from edgecv.errors import ModelError
from edgecv.vision.clips import ClipWindow, frame_spec, picture_size
from edgecv.vision.image import Image, input_problems
from edgecv.vision.preprocessor import Preprocessor
from edgecv.vision.tiles import Joiner, Tiling, cut, grid


@dataclass(frozen=True)
class Subject:
    """A model file under measurement.

    ``input`` and ``outputs`` are the tensors as the manifest describes them (an engine may not know its
    layouts); ``file_sha256`` is the hash of the very file that ``engine`` was loaded from. The ``preprocessor``
    keeps scratch pictures, so that one thread at a time may use it.

    ``tiling`` is set where a picture goes through the network in pieces (`pieces`), whose answers a `Collector` joins.
    """

    engine: Engine
    spec: FamilySpec
    contract: InputContract
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    file_sha256: str = ""
    threads: int = 0
    preprocessor: Preprocessor = field(init=False, repr=False, compare=False)
    tiling: Tiling | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tiling = families.tiling(self.spec, self.contract)
        # A tile has the network's size already; a contract that crops would still scale it.
        contract = self.contract if tiling is None else replace(self.contract, resize="stretch")
        object.__setattr__(self, "tiling", tiling)
        object.__setattr__(self, "preprocessor", Preprocessor(contract, self.input))

    @property
    def family(self) -> Family:
        """The family's module."""
        return families.get(self.spec.kind)

    def input_buffer(self) -> Array:
        """A new input array for `run`."""
        return np.zeros(self.input.shape, dtype=self.input.dtype)

    def run(self, image: Image, buffer: Array) -> list[FloatArray]:
        """A picture through ``buffer`` (of `input_buffer`) and the engine: its outputs as float32, batch axis kept.

        Raises:
            DataError: the picture cannot be used.
            EdgecvError: the engine failed.
        """
        answers = self.collector(picture_size(image))
        for piece in self.pieces(image):
            self.preprocessor.into(piece, buffer)
            answers.add(self.dequantize(self.engine.run([buffer])))
        return answers.outputs()

    def window(self) -> ClipWindow | None:
        """A new memory of a camera's last frames where the network takes clips; else None."""
        if self.contract.clip is None:
            return None
        one = frame_spec(self.input, self.contract)
        return ClipWindow(self.contract.clip, one, Preprocessor(self.contract.still, one).into)

    def pieces(self, image: Image) -> list[Image]:
        """What goes through the network for a picture, one inference each: the picture itself, or its tiles.

        Raises:
            DataError: the picture has to be cut and is none.
        """
        return [image] if self.tiling is None else cut(image, grid(picture_size(image), self.tiling))

    def fill(self, image: Image, buffers: list[Array]) -> list[Array]:
        """Write a picture's network inputs into ``buffers``, which grow as needed; those that were written.

        Raises:
            DataError: the picture cannot be used.
        """
        pieces = self.pieces(image)
        while len(buffers) < len(pieces):
            buffers.append(self.input_buffer())
        for piece, buffer in zip(pieces, buffers, strict=False):
            self.preprocessor.into(piece, buffer)
        return buffers[: len(pieces)]

    def collector(self, picture: tuple[int, int]) -> "Collector":
        """What takes the answers to the `pieces` of a picture of (height, width)."""
        return Collector(self.tiling, picture)

    def dequantize(self, stored: list[Array]) -> list[FloatArray]:
        """What the engine gave, as real values."""
        return [spec.dequantize(array) for spec, array in zip(self.outputs, stored, strict=True)]

    def decode(self, outputs: list[FloatArray], *, picture: tuple[int, int] | None = None) -> Any:
        """Outputs of one picture of (height, width) ``picture`` -> the family's result, in that picture's pixels."""
        return self.family.decode(outputs, self.spec, self.contract, picture=picture)


class Collector:
    """Takes the real outputs of each piece of a picture, in order, and gives those of the whole picture."""

    def __init__(self, tiling: Tiling | None, picture: tuple[int, int]) -> None:
        self._plan = None if tiling is None or picture == tiling.size else grid(picture, tiling)
        self._joiners: list[Joiner] = []
        self._outputs: list[FloatArray] = []

    def add(self, outputs: Sequence[FloatArray]) -> None:
        """The outputs of the next piece.

        Raises:
            ModelError: they are not as large as the tiling says.
        """
        if self._plan is None:
            self._outputs = list(outputs)
            return
        self._joiners = self._joiners or [Joiner(self._plan) for _ in outputs]
        for joiner, output in zip(self._joiners, outputs, strict=True):
            joiner.add(output)

    def outputs(self) -> list[FloatArray]:
        """The outputs of the whole picture.

        Raises:
            ModelError: pieces are missing.
        """
        return [joiner.whole() for joiner in self._joiners] if self._joiners else self._outputs


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
    found = input_problems(contract, takes) + families.problems(spec, contract, gives)
    if found:
        raise ModelError("\n".join(found))
    return Subject(engine, spec, contract, takes[0], gives, file_sha256, threads)
