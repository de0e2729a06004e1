"""The seams of the house: what a backend, an engine, a family and a data reader must offer.

Backends and families are modules; a module satisfies a Protocol by having its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.figures import AccuracyFigures, Delegation
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Placement, Shapes
from edgecv.core.target import Precision, Target
from edgecv.core.tensor import Array, FloatArray, TensorSpec


@dataclass(frozen=True)
class Sample:
    """One picture of a data set with its truth.

    ``image`` is uint8, `(H, W, 3)` BGR or `(H, W)` gray, or a clip `(T, H, W, 3)`; ``truth`` is what the family's
    metric takes (classification: the class index).
    """

    id: str
    image: Array
    truth: Any


@runtime_checkable
class MapTruth(Protocol):
    """A truth with a value for every pixel (classes, depth, ...): in training it moves as its picture does."""

    @property
    def fill(self) -> float:
        """The value of pixels outside the picture, which no loss counts."""
        ...

    def to_network(self, contract: InputContract) -> Array:
        """The map where the contract puts the picture's pixels: `(h, w)` of ``contract.size``."""
        ...


@runtime_checkable
class MovedTruth(Protocol):
    """A truth made of boxes, points or masks: in training they move as their picture does."""

    def shapes(self) -> Shapes:
        """What is to be moved."""
        ...

    def with_shapes(self, shapes: Shapes, *, size: tuple[int, int], mirrored: bool) -> MovedTruth:
        """The same with what became of its `shapes` in a picture of ``size`` (height, width), ``mirrored`` or not.

        The shapes may lie beyond the edges; what counts as left of an object there is the truth's to say.
        """
        ...


@runtime_checkable
class JoinedTruth(Protocol):
    """A truth that can be that of several pictures in one."""

    def joined(self, others: Sequence[Any]) -> JoinedTruth:
        """This and ``others``, all in pixels of the same picture."""
        ...


@runtime_checkable
class PointTruth(MovedTruth, Protocol):
    """A truth that knows its picture's size (keypoints, masks, ...)."""

    def to_network(self, contract: InputContract) -> PointTruth:
        """The same where the contract puts the picture's pixels, in pixels of ``contract.size``."""
        ...


@runtime_checkable
class PlacedTruth(MovedTruth, Protocol):
    """A truth that does not know its picture's size (boxes): it is told where the network sees it."""

    def placed(self, place: Placement, size: tuple[int, int]) -> PlacedTruth:
        """The same in pixels of the network's input of ``size`` (height, width), where ``place`` puts the picture."""
        ...


class Reader(Protocol):
    """A data set: random access, nothing held in memory, a fixed order."""

    @property
    def ids(self) -> Sequence[str]:
        """The samples' names, in order."""
        ...

    @property
    def skipped(self) -> Mapping[str, str]:
        """Files that were left out, and why."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def sha256(self, index: int) -> str:
        """Hash of one sample's bytes, as calibration manifests record it."""
        ...

    def fingerprint(self) -> str:
        """Hash over all samples and truths; changes when the data set does."""
        ...


class Engine(Protocol):
    """A loaded model: arrays in, arrays out, batch 1. Not safe to call from two threads at once."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """One inference. ``arrays`` fit ``inputs`` in shape and type; the results fit ``outputs``.

        The arrays that come back belong to the caller and stay valid after the next call.

        Raises:
            EdgecvError: an array does not fit, or the engine failed.
        """
        ...

    def delegation(self) -> Delegation | None:
        """How much of the graph runs accelerated; None where the engine does not tell."""
        ...

    def close(self) -> None:
        """Give the engine's memory back; calling it twice does no harm."""
        ...


@dataclass(frozen=True)
class CompileSource:
    """What export wrote for the compilers.

    ``onnx`` is a float or Q/DQ ONNX file (opset 21, batch 1, weights inside); ``program`` a
    torch.export archive of the same graph, with `quantized_decomposed` nodes left unfolded, or None
    where the model came as ONNX. ``precision`` is what the compiled file shall compute in.
    """

    precision: Precision
    onnx: Path | None
    program: Path | None


@dataclass(frozen=True)
class Compiled:
    """What a backend made: ``model`` is what `load` takes (a file, or a folder such as an .mlpackage),
    ``files`` all that belongs to the artifact; both relative to ``out``.

    ``status`` is ``deferred`` where the engine can only be built on the device; ``runs_here`` says
    whether `load` works on this machine.
    """

    model: str
    files: tuple[str, ...]
    status: Literal["ready", "deferred"]
    runs_here: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Backend(Protocol):
    """One engine: the module ``edgecv/backends/<name>.py``."""

    NAME: str
    SUFFIXES: tuple[str, ...]

    def missing(self, *, to: Literal["compile", "run"]) -> str | None:
        """What is missing on this machine, with the command that installs it; None when all is there."""
        ...

    def version(self) -> str:
        """Version of the engine; "" where it is not installed. Must not import the engine."""
        ...

    def compile(self, source: CompileSource, *, target: Target, out: Path, log: Path) -> Compiled:
        """Turn the exported graph into this engine's files in the existing, empty folder ``out``.

        Third-party output goes to the end of the file ``log``.

        Raises:
            ToolchainError: the engine or its converter is not installed or refused the graph.
        """
        ...

    def load(self, path: Path, *, options: Mapping[str, Any], threads: int | None) -> Engine:
        """Load a model made by `compile` (or imported); ``options`` are the target's engine options.

        Raises:
            ToolchainError: the engine is not installed or cannot run here.
            ArtifactError: the file is not one of this engine's.
        """
        ...


class Parts(Protocol):
    """What every picture brings to a metric that is no mean over pictures (average precision, IoU of sums, ...).

    The metric can be computed again with each picture counted any number of times: what a bootstrap needs.
    """

    @property
    def samples(self) -> int:
        """Number of pictures."""
        ...

    @property
    def work(self) -> int:
        """About how many numbers one computation of the metric goes through."""
        ...

    def values(self, counts: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """The metric `(R,)` with every picture counted as ``counts`` `(R, samples)` says."""
        ...

    def arrays(self) -> Mapping[str, Array]:
        """Everything as arrays, to be stored; ``form`` says what `edgecv.families.parts_from` makes of them."""
        ...


class Result(Protocol):
    """What a family says about one picture."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ...

    def words(self) -> str:
        """The result on one line of text."""
        ...


@runtime_checkable
class Graded(Protocol):
    """A result that can be more or less like another."""

    def likeness(self, other: Any) -> float:
        """0 (nothing in common) to 1 (the same)."""
        ...


@runtime_checkable
class Pieces(Protocol):
    """A result made of parts of a picture that are no upright boxes, which a second stage can look at."""

    @property
    def scores(self) -> FloatArray:
        """How sure each is, `(N,)`."""
        ...

    def cut(self, image: Array, row: int, *, margin: float) -> Array | None:
        """Part ``row`` of ``image`` seen upright, its shorter sides ``margin`` times as long; None for nothing."""
        ...

    def answered(self, answers: tuple[Any, ...]) -> Any:
        """The same with what the second stage said of each part; None for those that it did not look at."""
        ...


@runtime_checkable
class Seen(Protocol):
    """A result that is told from some time of a camera, not from one frame."""

    def seen(self, seconds: float) -> Any:
        """The same, told from so many seconds."""
        ...


class Metric(Protocol):
    """Collects decoded results against truths, then gives the figures."""

    def update(self, result: Any, truth: Any) -> None: ...

    def compute(self) -> AccuracyFigures: ...


@runtime_checkable
class PartsMetric(Metric, Protocol):
    """A metric that is no mean over pictures: ``per_sample`` of its figures cannot be averaged to its value."""

    def parts(self) -> Parts:
        """What the pictures so far bring to it."""
        ...


class Family(Protocol):
    """What the outputs of a model mean: the module ``edgecv/families/<kind>.py``."""

    KIND: str
    METRICS: tuple[str, ...]
    HEAD_NAMES: tuple[str, ...]
    """Layouts of outputs that ``FamilySpec.head`` may name; empty where there is only one."""

    def problems(self, spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
        """Why outputs of this shape do not fit the family, in words; empty when they do."""
        ...

    def decode(
        self,
        outputs: Sequence[FloatArray],
        spec: FamilySpec,
        contract: InputContract,
        *,
        picture: tuple[int, int] | None = None,
    ) -> Any:
        """Raw outputs of one picture (dequantised float32, batch axis kept) -> the family's result type.

        Coordinates of the result are pixels of a picture of (height, width) ``picture``, cut at its
        edges; None for a picture of the size of the network input.
        """
        ...

    def agree(self, one: Any, other: Any) -> bool:
        """Whether two results give the same answer (classification: the same best class)."""
        ...

    def metric(self, spec: FamilySpec, name: str) -> Metric: ...

    def loss(self, outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
        """Training loss (host half: torch tensors, batch first); a scalar tensor."""
        ...

    def protected(self, module: Any) -> list[str]:
        """Names of the submodules of a torch ``module`` that pruning must not narrow: its heads."""
        ...


Batches = Callable[[], Iterator[tuple[FloatArray, Any]]]
"""Starts one pass over data: `(N, C, H, W)` float32 network inputs and their truths."""
