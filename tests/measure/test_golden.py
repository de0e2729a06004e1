"""Golden pictures: read back as written, small, and refused where they are damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.errors import ArtifactError
from edgecv.measure.golden import Golden, decoded, engine_inputs, first_inputs, load_golden, save_golden
from edgecv.measure.ladder import Outputs
from edgecv.vision.image import preprocess

CONTRACT = InputContract((24, 24), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
SPEC = FamilySpec("classification", ("a", "b", "c"))


def golden() -> Golden:
    random = np.random.default_rng(0)
    pictures = (random.integers(0, 256, (40, 60, 3), dtype=np.uint8), random.integers(0, 256, (9, 20), dtype=np.uint8))
    inputs = np.stack([preprocess(picture, CONTRACT) for picture in pictures])
    outputs = Outputs("Q/DQ torch", (np.array([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]], dtype=np.float32),))
    return Golden(pictures, inputs, outputs, decoded(outputs, pictures, SPEC, CONTRACT))


def test_it_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    made = golden()
    save_golden(tmp_path / "g.npz", made)
    found = load_golden(tmp_path / "g.npz")
    assert [picture.tobytes() for picture in found.pictures] == [picture.tobytes() for picture in made.pictures]
    assert found.inputs.dtype == np.float32
    np.testing.assert_array_equal(found.inputs, made.inputs)
    assert found.outputs.name == "Q/DQ torch"
    assert found.results == made.results
    assert [item["classes"][0]["label"] for item in found.results] == ["b", "c"]


def test_inputs_of_a_byte_take_a_byte(tmp_path: Path) -> None:
    made = golden()
    save_golden(tmp_path / "g.npz", made)
    noisy = made.inputs + np.random.default_rng(1).random(made.inputs.shape, dtype=np.float32) * 1e-3
    save_golden(tmp_path / "n.npz", replace(made, inputs=noisy))
    np.testing.assert_array_equal(load_golden(tmp_path / "n.npz").inputs, noisy)
    assert 2 * (tmp_path / "g.npz").stat().st_size < (tmp_path / "n.npz").stat().st_size + made.inputs.nbytes


def test_a_file_of_an_older_version_has_no_results(tmp_path: Path) -> None:
    made = golden()
    arrays = {f"picture{index:03d}": picture for index, picture in enumerate(made.pictures)}
    np.savez_compressed(tmp_path / "g.npz", **arrays, inputs=made.inputs, **{"form/0": made.outputs.arrays[0]})
    found = load_golden(tmp_path / "g.npz")
    assert found.results == ()
    np.testing.assert_array_equal(found.inputs, made.inputs)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a zip at all"])
def test_a_corrupt_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match="corrupt"):
        load_golden(tmp_path / "g.npz")


def test_a_pickle_inside_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", **{"x/0": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(ArtifactError, match="corrupt"):
        load_golden(tmp_path / "g.npz")


@pytest.mark.parametrize("text", [b"{", b"[1]", b"{}", b"[" * 100_000])
def test_results_that_are_no_results_are_refused(tmp_path: Path, text: bytes) -> None:
    made = golden()
    arrays = {f"picture{index:03d}": picture for index, picture in enumerate(made.pictures)}
    results = np.frombuffer(text, dtype=np.uint8)
    np.savez(tmp_path / "g.npz", **arrays, inputs=made.inputs, results=results, **{"f/0": made.outputs.arrays[0]})
    with pytest.raises(ArtifactError, match="corrupt"):
        load_golden(tmp_path / "g.npz")


def test_other_numbers_of_pictures_are_refused(tmp_path: Path) -> None:
    made = golden()
    save_golden(tmp_path / "g.npz", replace(made, pictures=made.pictures[:1]))
    with pytest.raises(ArtifactError, match="other numbers"):
        load_golden(tmp_path / "g.npz")


def test_engine_inputs_have_the_engines_layout_and_type() -> None:
    spec = TensorSpec("x", (1, 24, 24, 3), "int8", "NHWC", Quantization(0.1, -3))
    inputs = golden().inputs
    stored = engine_inputs(spec, inputs)
    assert (stored.shape, stored.dtype, stored.flags.c_contiguous) == ((2, 24, 24, 3), np.int8, True)
    np.testing.assert_allclose(spec.dequantize(stored), inputs.transpose(0, 2, 3, 1), atol=0.0501)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_network_that_streams_is_first_fed_a_frame_and_a_state_of_zeros(layout: Literal["NCHW", "NHWC"]) -> None:
    clip = np.random.default_rng(0).random((1, 9, 4, 6), dtype=np.float32)
    shape = (1, 3, 4, 6) if layout == "NCHW" else (1, 4, 6, 3)
    state = TensorSpec("s", (1, 2, 3, 5), "int8", layout, Quantization(0.5, -7))
    frame, zeros = first_inputs([TensorSpec("x", shape, "float32", layout), state], clip)
    assert np.array_equal(frame if layout == "NCHW" else frame.transpose(0, 3, 1, 2), clip[:, :3])
    assert zeros.shape == (1, 2, 3, 5)
    assert (zeros == -7).all()
    whole = first_inputs([TensorSpec("x", (1, 9, 4, 6), "float32", "NCHW")], clip)
    assert len(whole) == 1
    assert np.array_equal(whole[0], clip)
