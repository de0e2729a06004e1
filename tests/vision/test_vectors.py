"""Rows of numbers as a network's input: float and quantised, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.contract import Clip, InputContract
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.errors import DataError, ModelError
from edgecv.vision.clips import picture_size
from edgecv.vision.image import input_problems
from edgecv.vision.preprocessor import Preprocessor

CONTRACT = InputContract(size=(1, 3), vector=True, mean=(1.0,), std=(2.0,))
FLOAT = TensorSpec("x", (1, 3), "float32", "NC")


def test_mean_and_std_count_and_range_does_not() -> None:
    out = np.zeros((1, 3), np.float32)
    place = Preprocessor(CONTRACT, FLOAT).into(np.array([1.0, 5.0, -3.0]), out)
    np.testing.assert_array_equal(out, [[0.0, 2.0, -2.0]])
    assert place.size == place.picture == (1, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_any_real_type(dtype: type) -> None:
    out = np.zeros((1, 3), np.float32)
    Preprocessor(CONTRACT, FLOAT).into(np.array([1, 3, 7], dtype=dtype), out)
    np.testing.assert_array_equal(out, [[0, 1, 3]])


def test_quantised_input_is_the_nearest_step() -> None:
    spec = TensorSpec("x", (1, 3), "int8", "NC", Quantization(0.5, -10))
    out = np.zeros((1, 3), np.int8)
    values = np.array([1.3, 400.0, -400.0], np.float32)
    Preprocessor(CONTRACT, spec).into(values, out)
    np.testing.assert_array_equal(out, [[-10, 127, -128]])
    np.testing.assert_array_equal(out, spec.quantize((values - 1) / 2)[None])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(4, np.float32), r"the row is float32 \(4,\); this network takes a row of 3 numbers"),
        (np.zeros((5, 7, 3), np.uint8), r"the picture is uint8 \(5, 7, 3\)"),
        (np.array([0, np.nan, 1]), "number 2 of 3 is NaN or infinite"),
        (np.array([0, 1, -np.inf]), "number 3 of 3 is NaN or infinite"),
        (np.array(["a", "b", "c"]), "takes a row of 3 numbers"),
    ],
)
def test_what_is_no_such_row(values: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Preprocessor(CONTRACT, FLOAT).into(values, np.zeros((1, 3), np.float32))


def test_the_buffer_and_the_tensor_are_checked() -> None:
    with pytest.raises(ModelError, match="input buffer"):
        Preprocessor(CONTRACT, FLOAT).into(np.zeros(3), np.zeros((1, 4), np.float32))
    four = TensorSpec("x", (1, 4), "float32", "NC")
    assert "(a row of 3 numbers) needs (1, 3)" in input_problems(CONTRACT, (four,))[0]
    picture = TensorSpec("x", (1, 1, 1, 3), "float32", "NCHW")
    assert input_problems(CONTRACT, (picture,)) == ["input 'x' has layout NCHW; allowed are NC"]
    assert "layout NC; allowed are NCHW, NHWC" in input_problems(InputContract(size=(1, 3)), (FLOAT,))[0]


def test_sound_and_broken_contracts() -> None:
    assert CONTRACT.problems() == []
    assert (CONTRACT.channels, CONTRACT.planes) == (1, 1)
    high = InputContract(size=(2, 3), vector=True, mean=(0.0,), std=(1.0,))
    assert high.problems() == ["vector has size [2, 3]; a row of numbers needs [1, count], and no clip"]
    moving = InputContract(size=(1, 3), vector=True, mean=(0.0,), std=(1.0,), clip=Clip(2, 1.0))
    assert "and no clip" in moving.problems()[0]
    assert "mean has 3 values; a row of numbers needs 1" in InputContract(size=(1, 3), vector=True).problems()


def test_a_row_counts_as_one_row_of_pixels() -> None:
    assert picture_size(np.zeros(7)) == (1, 7)
