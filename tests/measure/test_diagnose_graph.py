"""Weights, scales, layers and outputs that changed are named from their prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.backends.contents import Contents
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.errors import ArtifactError
from edgecv.measure.diagnose_graph import diagnose_edges, diagnose_graph, diagnose_outputs, diagnose_scales, first_layer
from edgecv.measure.fingerprint import (
    Fingerprint,
    change_of,
    fingerprint,
    read_fingerprint,
    tensor_print,
    write_fingerprint,
)

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((6, 4, 3, 3)).astype(np.float32)
MATRIX = RANDOM.integers(-127, 128, (5, 7)).astype(np.int8)
SPEC = TensorSpec("y", (1, 40), "int8", "NC", Quantization(0.05, -10))


def prints(layers: dict[str, np.ndarray] | None = None) -> Fingerprint:
    scales = {"x": (np.float32(0.5), np.uint8(128)), "w": (np.arange(1, 7) / 10, np.zeros(6))}
    return fingerprint(Contents({"w": WEIGHT, "m": MATRIX}, scales, {"a": "1", "b": "2"}), layers or {})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (WEIGHT.copy(), ""),
        (WEIGHT.transpose(0, 1, 3, 2), "it is transposed (its axes stand as [0, 1, 3, 2])"),
        (np.ascontiguousarray(WEIGHT.transpose(1, 0, 2, 3)).reshape(WEIGHT.shape), "[1, 0, 2, 3])"),
        (WEIGHT.transpose(0, 2, 3, 1), "[0, 2, 3, 1])"),
        (WEIGHT[:, :, ::-1], "its axis 2 is reversed (as RGB for BGR)"),
        (WEIGHT[[1, 0, 2, 3, 4, 5]], "its slices along axis 0 are in another order"),
        (WEIGHT * np.float32(0.5), "it is multiplied by 0.5"),
        (WEIGHT + np.float32(3), "3 is added to it"),
        (np.random.default_rng(9).permuted(WEIGHT.ravel()).reshape(WEIGHT.shape), "its values are in another order"),
        (np.zeros_like(WEIGHT), "its values are 0"),
        (WEIGHT**2, "32 of 32 values looked at are others"),
    ],
)
def test_a_changed_weight_is_described(found: np.ndarray, words: str) -> None:
    said = change_of(tensor_print(WEIGHT), found)
    assert (said == "") == (words == "")
    assert words in said


def test_a_transposed_matrix_keeps_its_old_shape_in_the_file() -> None:
    moved = np.ascontiguousarray(MATRIX.T).reshape(MATRIX.shape)
    assert change_of(tensor_print(MATRIX), moved) == "it is transposed"
    assert change_of(tensor_print(MATRIX), MATRIX.T) == "it is transposed"


def test_equal_contents_give_no_cause_and_unknown_names_are_left_aside() -> None:
    same = Contents({"w": WEIGHT, "new": MATRIX}, {"x": (np.array([0.5]), np.array([128]))}, {"a": "1", "c": "9"})
    assert diagnose_graph(prints(), same) == ()
    assert diagnose_scales(prints().scales, same) == ()


def test_scales_of_channels_are_named_with_their_number() -> None:
    scales = np.arange(1, 7) / 10
    scales[2] = 0.9
    found = Contents({}, {"x": (np.float32(0.5), np.uint8(100)), "w": (scales, np.zeros(6))})
    zero, scale = diagnose_scales(prints().scales, found)
    assert (zero.what, zero.found, zero.expected) == ("zero point of 'x'", "100", "128")
    assert (scale.what, scale.found, scale.expected) == ("scale of 'w'", "0.9", "0.3")
    assert "1 of 6 channels" in scale.evidence


def test_a_wrong_zero_point_of_an_output_is_computed_from_its_values() -> None:
    expected = SPEC.dequantize(RANDOM.integers(-60, 60, (8, 40)).astype(np.int8))
    read = replace(SPEC, quantization=Quantization(0.05, 4))
    (cause,) = diagnose_outputs([expected], [read.dequantize(SPEC.quantize(expected))], [read])
    assert (cause.rung, cause.what) == ("quantisation", "zero point of output 'y'")
    assert (cause.found, cause.expected) == ("4", "-10")


def test_a_wrong_scale_of_an_output_is_computed_from_its_values() -> None:
    expected = SPEC.dequantize(RANDOM.integers(-60, 60, (8, 40)).astype(np.int8))
    read = replace(SPEC, quantization=Quantization(0.1, -10))
    (cause,) = diagnose_outputs([expected], [read.dequantize(SPEC.quantize(expected))], [read])
    assert (cause.what, cause.found, cause.expected) == ("scale of output 'y'", "0.1", "0.05")


def test_an_output_that_is_cut_off_is_named() -> None:
    random = np.random.default_rng(2)  # of its own: which tests ran before must not matter
    expected = (random.standard_normal((8, 40)) * 2).clip(-3, 3).astype(np.float32)
    found = SPEC.dequantize(SPEC.quantize(expected * 9))
    (cause,) = diagnose_outputs([expected], [found], [SPEC])
    assert (cause.rung, cause.what) == ("quantisation", "output 'y' is cut off at the ends of int8")
    assert (float(cause.found.rstrip("%")), cause.expected) == (pytest.approx(75, abs=8), "0%")


def test_outputs_in_another_order_are_named() -> None:
    one, two, three = (RANDOM.standard_normal((4, 20)).astype(np.float32) for _ in range(3))
    specs = [TensorSpec(name, (1, 20), "float32") for name in "abc"]
    (cause,) = diagnose_outputs([one, two, three], [three, one, two], specs)
    assert (cause.what, cause.found, cause.expected) == ("order of the outputs", "[2, 0, 1]", "[0, 1, 2]")


def test_the_first_layer_with_other_values_is_named() -> None:
    layers = {name: RANDOM.standard_normal((1, 200)).astype(np.float32) for name in ("one", "two", "three")}
    wrong = {**layers, "two": layers["two"][:, ::-1], "three": -layers["three"]}
    assert first_layer(prints(layers), layers) is None
    expected, found = (RANDOM.standard_normal((4, 20)).astype(np.float32) for _ in range(2))
    spec = TensorSpec("y", (1, 20), "float32")
    (cause,) = diagnose_outputs([expected], [found], [spec], recorded=prints(layers), layers=wrong)
    assert cause.what == "the first layer that gives other values is 'two'"
    (without,) = diagnose_outputs([expected], [found], [spec])
    assert without.what == "output 'y' has other values"


def test_edges_of_the_manifest_are_held_against_the_file() -> None:
    other = replace(SPEC, quantization=Quantization(0.25, 0))
    found = diagnose_edges("output", (SPEC,), (other,))
    assert [(cause.what, cause.found, cause.expected) for cause in found] == [
        ("zero point of output 'y'", "-10", "0"),
        ("scale of output 'y'", "0.05", "0.25"),
    ]
    assert diagnose_edges("output", (SPEC,), (SPEC,)) == ()
    (cause,) = diagnose_edges("input", (replace(SPEC, quantization=None),), (SPEC,))
    assert (cause.found, cause.expected) == ("float", "0.05, -10")


def test_a_fingerprint_is_read_back(tmp_path: Path) -> None:
    made = prints({"one": np.array([[1.0, np.inf, -2.0]], dtype=np.float32)})
    write_fingerprint(tmp_path / "c.json", made)
    assert read_fingerprint(tmp_path / "c.json") == made
    (tmp_path / "c.json").write_text('{"version": 1}')
    with pytest.raises(ArtifactError, match="corrupt"):
        read_fingerprint(tmp_path / "c.json")
    write_fingerprint(tmp_path / "c.json", replace(made, version=9))
    with pytest.raises(ArtifactError, match="version 9"):
        read_fingerprint(tmp_path / "c.json")
