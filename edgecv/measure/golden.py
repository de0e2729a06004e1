"""Golden pictures: they travel with the artifact, so that it can prove itself where it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.plain import to_plain
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Array, FloatArray, TensorSpec
from edgecv.errors import ArtifactError
from edgecv.measure.ladder import Outputs, load_outputs
from edgecv.vision.clips import picture_size, unstacked

_CODES, _TABLES, _INPUTS, _RESULTS = "codes", "tables", "inputs", "results"
_MAX_RESULTS_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Golden:
    """What an artifact has to give on a few pictures.

    ``pictures`` are uint8 as read; ``inputs`` `(N, C, H, W)` float32 what training and calibration
    made of them; ``outputs`` what the graph answered before it was compiled; ``results`` how that was
    decoded, as plain values in pixels of the picture (() in artifacts of older versions).
    """

    pictures: tuple[Array, ...]
    inputs: FloatArray
    outputs: Outputs
    results: tuple[dict[str, Any], ...] = ()


def decoded(
    outputs: Outputs, pictures: Sequence[Array], spec: FamilySpec, contract: InputContract
) -> tuple[dict[str, Any], ...]:
    """The family's results for the outputs of each picture, as plain values, in pixels of the picture.

    Raises:
        ModelError: the outputs do not fit the family.
    """
    family = families.get(spec.kind)
    found = []
    for row, picture in enumerate(pictures):
        one = [array[row : row + 1] for array in outputs.arrays]
        result = family.decode(one, spec, contract, picture=picture_size(picture))
        found.append(to_plain(result.to_dict()))
    return tuple(found)


def engine_inputs(spec: TensorSpec, inputs: FloatArray) -> Array:
    """Network inputs `(N, C, H, W)` in the type and layout of the engine's input ``spec``."""
    frames = spec.shape[{"NTCHW": 1, "NTHWC": 1, "NCTHW": 2}.get(spec.layout, 0)]
    return np.ascontiguousarray(spec.quantize(unstacked(inputs, spec.layout, frames)))


def first_inputs(specs: Sequence[TensorSpec], inputs: FloatArray) -> list[Array]:
    """What an engine with the inputs ``specs`` takes first for the network input ``inputs`` `(1, C, H, W)`.

    Of a network that streams that is the first frame of a clip, and a state of zeros.
    """
    frame, *state = specs
    channels = frame.shape[3 if frame.layout == "NHWC" else 1] if state else inputs.shape[1]
    zeros = [spec.quantize(np.zeros(spec.shape, dtype=np.float32)) for spec in state]
    return [engine_inputs(frame, inputs[:, :channels]), *zeros]


def save_golden(path: Path, golden: Golden) -> None:
    """Write golden pictures as one compressed .npz without pickles.

    A network input is a table of pixel values (see `edgecv.vision.image`), so a byte a value is kept of it and the
    tables; where a channel has more than 256 values, the values as they are.
    """
    arrays: dict[str, Array] = {f"picture{number:03d}": picture for number, picture in enumerate(golden.pictures)}
    arrays.update({f"{golden.outputs.name}/{number}": array for number, array in enumerate(golden.outputs.arrays)})
    coded = _coded(golden.inputs)
    if coded is None:
        arrays[_INPUTS] = golden.inputs
    else:
        arrays[_CODES], arrays[_TABLES] = coded
    text = json.dumps(list(golden.results), separators=(",", ":")).encode()
    np.savez_compressed(path, allow_pickle=False, **arrays, **{_RESULTS: np.frombuffer(text, dtype=np.uint8)})


def load_golden(path: Path) -> Golden:
    """Read what `save_golden` wrote.

    Raises:
        ArtifactError: the file is corrupt.
    """
    forms, extra = load_outputs(path)
    pictures = tuple(extra[name] for name in sorted(extra) if name.startswith("picture"))
    inputs = extra.get(_INPUTS)
    if inputs is None and _CODES in extra and _TABLES in extra:
        inputs = _uncoded(extra[_CODES], extra[_TABLES])
    if len(forms) != 1 or inputs is None or not pictures:
        raise ArtifactError(f"{path} does not hold golden pictures; build the artifact again")
    outputs = next(iter(forms.values()))
    results = _results(path, extra.get(_RESULTS))
    counts = {len(pictures), len(inputs), outputs.samples, len(results) or len(pictures)}
    if len(counts) != 1:
        raise ArtifactError(f"{path} has other numbers of pictures, inputs, outputs and results; build it again")
    return Golden(pictures, inputs, outputs, results)


def _coded(inputs: FloatArray) -> tuple[Array, FloatArray] | None:
    """Bytes `(N, C, H, W)` and the values `(C, 256)` that they stand for."""
    codes = np.empty(inputs.shape, dtype=np.uint8)
    tables = np.zeros((inputs.shape[1], 256), dtype=np.float32)
    for channel in range(inputs.shape[1]):
        values, places = np.unique(inputs[:, channel], return_inverse=True)
        if len(values) > 256:
            return None
        tables[channel, : len(values)] = values
        codes[:, channel] = places.reshape(codes[:, channel].shape)
    return codes, tables


def _uncoded(codes: Array, tables: Array) -> FloatArray | None:
    if codes.ndim != 4 or codes.dtype != np.uint8 or tables.shape != (codes.shape[1], 256):
        return None
    return np.stack([tables[channel][codes[:, channel]] for channel in range(codes.shape[1])], axis=1).astype(
        np.float32
    )


def _results(path: Path, stored: Array | None) -> tuple[dict[str, Any], ...]:
    if stored is None:
        return ()
    if stored.nbytes > _MAX_RESULTS_BYTES:
        raise ArtifactError(f"{path} holds {stored.nbytes} bytes of results; allowed are {_MAX_RESULTS_BYTES}")
    try:
        found = json.loads(stored.tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is corrupt ({error}); build the artifact again") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ArtifactError(f"{path} is corrupt: its results are no list of objects; build the artifact again")
    return tuple(found)
