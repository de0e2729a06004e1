"""An ONNX file as the model: checked, brought to fixed shapes at batch 1, and otherwise left as it is."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import shape_inference

from edgecv.core.contract import InputContract
from edgecv.errors import ModelError

MIN_OPSET = 7


def fix_onnx(source: Path, contract: InputContract, out: Path) -> None:
    """Write ``source`` to ``out`` with weights inside and every open input length set.

    The one image input gets batch 1 and the contract's size where its lengths are open (dynamic);
    lengths that are fixed in the file stay, and must fit.

    Raises:
        ModelError: not an ONNX file, too old, without exactly one input, or of another fixed size.
    """
    try:
        model = onnx.load(str(source))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        line = str(error).strip().splitlines()
        raise ModelError(f"{source} is not a valid ONNX file ({line[0] if line else error!r})") from error
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < MIN_OPSET:
        raise ModelError(f"{source} has opset {opset}; {MIN_OPSET} or newer is needed. Export the model again.")
    weights = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs) or "none"
        raise ModelError(f"{source} has the inputs {names}; a picture model has exactly one")
    fix_input(source, inputs[0], contract)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    model = shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    onnx.save(model, str(out))


def fix_input(path: Path, picture: onnx.ValueInfoProto, contract: InputContract) -> tuple[tuple[int, ...], bool]:
    """Set the open lengths of an image input, in place: its shape then, and whether channels come last.

    Raises:
        ModelError: the input has other than four dimensions, or is fixed to another size.
    """
    lengths = picture.type.tensor_type.shape.dim
    if len(lengths) != 4:
        raise ModelError(f"{path}: input {picture.name!r} has {len(lengths)} dimensions; a picture has 4")
    height, width = contract.size
    last = lengths[3].dim_value == contract.planes and lengths[1].dim_value != contract.planes
    wanted = (1, height, width, contract.planes) if last else (1, contract.planes, height, width)
    for length, value in zip(lengths, wanted, strict=True):
        if length.dim_value in (0, value):
            length.dim_value = value
    found = [length.dim_value for length in lengths]
    if found != list(wanted):
        raise ModelError(
            f"{path}: input {picture.name!r} has the fixed shape {found}; the recipe's input needs {list(wanted)}. "
            "Change model.input, or export the model for that size."
        )
    return wanted, last
