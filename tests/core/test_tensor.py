"""Tensor specs and the affine quantisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.core.tensor import LAYOUTS, Quantization, TensorSpec

INT8 = TensorSpec("x", (1, 4), "int8", "NC", Quantization(0.5, -3))


def test_quantize_rounds_half_to_even_and_saturates() -> None:
    values = np.array([0.0, 0.25, 0.75, -0.25, 1000.0, -1000.0], dtype=np.float32)
    np.testing.assert_array_equal(INT8.quantize(values), np.array([-3, -3, -1, -3, 127, -128], dtype=np.int8))
    assert INT8.quantize(values).dtype == np.int8


def test_dequantize() -> None:
    found = INT8.dequantize(np.array([-128, -3, 127], dtype=np.int8))
    np.testing.assert_array_equal(found, np.array([-62.5, 0.0, 65.0], dtype=np.float32))
    assert found.dtype == np.float32


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@given(scale=st.floats(1e-6, 1e3), share=st.floats(0, 1))
def test_every_stored_value_survives_the_round_trip(dtype: str, scale: float, share: float) -> None:
    limits = np.iinfo(dtype)
    zero = round(limits.min + share * (limits.max - limits.min))
    spec = TensorSpec("x", (1,), dtype, quantization=Quantization(scale, zero))
    stored = np.linspace(limits.min, limits.max, 256).astype(dtype)
    np.testing.assert_array_equal(spec.quantize(spec.dequantize(stored)), stored)


def test_without_scales_only_the_type_changes() -> None:
    spec = TensorSpec("x", (2,), "float16")
    assert spec.quantize(np.array([1.5, 2.5])).dtype == np.float16
    strided = np.arange(6, dtype=np.float32)[::2]
    assert TensorSpec("x", (3,), "float32").quantize(strided).flags.c_contiguous
    np.testing.assert_array_equal(spec.dequantize(np.array([1, 2], dtype=np.int64)), np.float32([1, 2]))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scale_must_be_finite_and_positive(scale: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Quantization(scale, 0)


@pytest.mark.parametrize("shape", [(0,), (1, -1), (3, 0, 2)])
def test_open_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="every length must be 1 or more"):
        TensorSpec("x", shape, "float32")


def test_unknown_types_and_layouts_are_refused() -> None:
    for dtype in ("floaty32", "object_", "str", "complex64", "S8"):
        with pytest.raises(ValueError, match=f"has type '{dtype}'"):
            TensorSpec("x", (1,), dtype)
    with pytest.raises(ValueError, match="NCHW, NHWC"):
        TensorSpec("x", (1,), "float32", "CHWN")  # type: ignore[arg-type]
    for layout in LAYOUTS:
        assert TensorSpec("x", (), "float32", layout).shape == ()
