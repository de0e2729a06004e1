"""What is measured: a loaded engine with everything that turns its arrays into answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgecv import families
from edgecv.backends.stream import StreamEngine
from edgecv.core.contract import InputContract
from edgecv.core.protocols import Engine, Family
from edgecv.core.recipe import FamilySpec
from edgecv.core.state import split_state, state_problems
from edgecv.core.tensor import Array, FloatArray, TensorSpec
from edgecv.errors import ModelError
from edgecv.vision.clips import ClipWindow, StreamPace, check_clip, frame_spec, picture_size
from edgecv.vision.image import Image, input_problems
from edgecv.vision.preprocessor import Preprocessor
from edgecv.vision.tiles import Joiner, Tiling, cut, grid


@dataclass(frozen=True)
class Subject:
    """A model file under measurement.

    ``input`` and ``outputs`` are the tensors as the manifest describes them (an engine may not know its
    layouts); ``file_sha256`` is the hash of the very file that ``engine`` was loaded from. The ``preprocessor``
    keeps scratch pictures, so that one thread at a time may use it.

    Of a network that streams ``engine`` is a `StreamEngine`, and ``input`` and ``outputs`` are those of a frame.

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
        contract = self.contract.once if tiling is None else replace(self.contract, resize="stretch")
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

        Where the network streams, a clip begins anew and its last frame's outputs are given; a single frame follows
        those that ran before it.

        Raises:
            DataError: the picture cannot be used.
            EdgecvError: the engine failed.
        """
        answers = self.collector(picture_size(image))
        self.begin(image)
        for piece in self.pieces(image):
            self.preprocessor.into(piece, buffer)
            answers.add(self.dequantize(self.engine.run([buffer])))
        return answers.outputs()

    def window(self) -> ClipWindow | None:
        """A new memory of a camera's last frames where the network takes clips; else None."""
        if self.contract.clip is None or self.contract.streams:
            return None
        one = frame_spec(self.input, self.contract)
        return ClipWindow(self.contract.clip, one, Preprocessor(self.contract.still, one).into)

    def pace(self) -> StreamPace | None:
        """A new count of a camera's frames where the network streams; else None."""
        return StreamPace(self.contract.clip) if self.contract.clip is not None and self.contract.streams else None

    def begin(self, image: Image) -> None:
        """Before the `pieces` of a clip: a network that streams forgets what it saw."""
        if isinstance(self.engine, StreamEngine) and image.ndim == 4:
            self.engine.reset()

    def pieces(self, image: Image) -> list[Image]:
        """What goes through the network for a picture, one inference each: the picture itself, or its tiles; where the
        network streams, the frames of a clip, or the one frame.

        Raises:
            DataError: the picture has to be cut and is none, or the clip has another number of frames.
        """
        if self.contract.streams and self.contract.clip is not None and image.ndim == 4:
            check_clip(image, self.contract.clip)
            return list(image)
        return [image] if self.tiling is None else cut(image, grid(picture_size(image), self.tiling))

    def apart(self, images: Sequence[Image]) -> list[Image]:
        """What a camera would give one after another: the ``images``, or where the network streams their frames."""
        return [frame for clip in images for frame in clip] if self.contract.streams else list(images)

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


def tensor_problems(
    spec: FamilySpec, contract: InputContract, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> list[str]:
    """Why a model's tensors do not fit the contract or the family, in words; empty when they do."""
    takes, answers = tuple(inputs), tuple(outputs)
    found = state_problems(takes, answers) if contract.streams else []
    if contract.streams and not found:
        answers = split_state(takes, answers)[0]
    return found + input_problems(contract, takes) + families.problems(spec, contract, answers)


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

    The engine of a network that streams gets a place for its state (`StreamEngine`).

    Raises:
        ModelError: the engine's tensors do not fit the contract or the family; every problem is listed.
    """
    takes, gives = inputs or engine.inputs, outputs or engine.outputs
    found = tensor_problems(spec, contract, takes, gives)
    if found:
        raise ModelError("\n".join(found))
    if contract.streams:
        engine = StreamEngine(engine, takes, gives)
        gives = engine.outputs
    return Subject(engine, spec, contract, takes[0], gives, file_sha256, threads)
