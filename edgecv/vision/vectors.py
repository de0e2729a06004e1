"""A row of numbers (hand landmarks, sensor values, ...) -> the input buffer of a network that sees no picture."""

from __future__ import annotations

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.tensor import Array, TensorSpec
from edgecv.errors import DataError
from edgecv.vision.image import check_buffer


def fill_vector(values: Array, contract: InputContract, spec: TensorSpec, out: Array) -> None:
    """Write ``values``, `(D,)` of any real type, into ``out``, the engine's input `(1, D)`, as ``(x - mean) / std``.

    Where ``spec`` is quantised, the stored value is the one nearest to it.

    Raises:
        DataError: there are not as many numbers as the contract says, or one is NaN or infinite.
        ModelError: ``out`` does not fit the model's input, or the input not the contract.
    """
    check_buffer(contract, spec, out)
    wanted = contract.size[1]
    if values.shape != (wanted,) or values.dtype.kind not in "fiu":
        what = "picture" if values.ndim > 1 else "row"
        raise DataError(
            f"the {what} is {values.dtype} {values.shape}; this network takes a row of {wanted} numbers and no "
            "picture: give data of kind vectors, a csv file with so many numbers a line"
        )
    if not np.isfinite(values).all():
        raise DataError(f"number {int(np.isfinite(values).argmin()) + 1} of {wanted} is NaN or infinite; correct it")
    scaled = (values.astype(np.float64) - contract.mean[0]) / contract.std[0]
    out[0] = spec.quantize(scaled.astype(np.float32))
