"""Every operator of the importer on a tiny file, against ONNX Runtime, at batch 1 and at batch 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import NodeProto, TensorProto

from edgecv.core.contract import InputContract
from edgecv.models.onnx_import import batch_note, import_onnx
from edgecv.models.onnx_import.ops import OPS
from tests.models.onnx_files import HEIGHT, SHAPE, WIDTH, node, run, save, weights

CONTRACT = InputContract(size=(HEIGHT, WIDTH), mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
INT = np.int64


def i(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=INT)


def f(*values: float) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


Case = tuple[str, list[NodeProto], dict[str, Any], int]
CASES: list[Any] = []


def case(name: str, nodes: list[NodeProto] | NodeProto, opset: int = 17, /, **constants: Any) -> None:
    CASES.append(pytest.param(nodes if isinstance(nodes, list) else [nodes], constants, opset, id=name))


for op in (
    *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "IsInf", "IsNaN", "LeakyRelu", "Neg", "Reciprocal", "Relu", "Round"),
    *("Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tan", "Tanh", "Elu", "HardSigmoid", "HardSwish"),
    *("ThresholdedRelu", "Atan", "GlobalAveragePool", "GlobalMaxPool", "Identity"),
):
    case(op, node(op, "x", "y"))
case("Celu", node("Celu", "x", "y", alpha=0.7))
for op in ("Sqrt", "Log", "Acos", "Asin"):
    case(op, [node("Sigmoid", "x", "s"), node(op, "s", "y")])
case("Mish", node("Mish", "x", "y"), 18)
case("Gelu", node("Gelu", "x", "y"), 20)
case("Gelu tanh", node("Gelu", "x", "y", approximate="tanh"), 20)
case("Clip attributes", node("Clip", "x", "y", min=-0.2, max=0.4), 7)
case("Clip relu6", node("Clip", "x lo hi", "y"), lo=np.float32(0), hi=np.float32(6))
case("Clip low", node("Clip", "x lo", "y"), lo=np.float32(-0.3))
case("Clip high", node("Clip", "x - hi", "y"), hi=np.float32(0.3))
case("PRelu channel", node("PRelu", "x s", "y"), s=weights(3, 1, 1))
case("PRelu one", node("PRelu", "x s", "y"), s=f(0.2))
case("PRelu width", node("PRelu", "x s", "y"), s=weights(WIDTH))
case("HardSigmoid sixth", node("HardSigmoid", "x", "y", alpha=1 / 6))
for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum"):
    case(f"{op} scalar", node(op, "x c", "y"), c=np.float32(1.7))
    case(f"{op} channel", node(op, "x c", "y"), c=weights(3, 1, 1, low=0.5))
for op in ("Sub", "Div"):
    case(f"{op} from scalar", [node("Exp", "x", "e"), node(op, "c e", "y")], c=np.float32(2))
case("Sum three", [node("Relu", "x", "r"), node("Sum", "x r c", "y")], c=weights(1, 3, 1, 1))
case("Pow 2", node("Pow", "x c", "y"), c=np.float32(2))
case("Pow half", [node("Exp", "x", "e"), node("Pow", "e c", "y")], c=np.float32(0.5))
case("Pow of constant", node("Pow", "c x", "y"), c=np.float32(2))
case("Mod", node("Mod", "x c", "y", fmod=1), c=np.float32(0.3))
for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
    case(op, node(op, "x c", "y"), c=np.float32(0.1))
for op in ("And", "Or", "Xor"):
    case(op, [node("Greater", "x c", "p"), node("Less", "x d", "q"), node(op, "p q", "y")], c=f(0.1), d=f(0.4))
case("Not", [node("Greater", "x c", "p"), node("Not", "p", "y")], c=f(0.1))
case("Where", [node("Greater", "x c", "p"), node("Where", "p x c", "y")], c=f(0.1))
case("Cast", [node("Greater", "x c", "p"), node("Cast", "p", "y", to=TensorProto.FLOAT)], c=f(0.1))
case("Cast int", [node("Mul", "x c", "m"), node("Cast", "m", "y", to=TensorProto.INT32)], c=f(9))
case("CastLike", [node("Greater", "x c", "p"), node("CastLike", "p c", "y")], c=f(0.1))
case(
    "Div int",
    [node("Mul", "x c", "m"), node("Cast", "m", "n", to=TensorProto.INT64), node("Div", "n d", "y")],
    c=f(99),
    d=i(7),
)
case("Dropout", node("Dropout", "x", "y"))

W = weights(4, 3, 3, 3)
case("Conv", node("Conv", "x w b", "y", pads=[1, 1, 1, 1], strides=[2, 2]), w=W, b=weights(4))
case("Conv no bias", node("Conv", "x w", "y"), w=W)
case("Conv dilated", node("Conv", "x w", "y", pads=[2, 2, 2, 2], dilations=[2, 2]), w=W)
case("Conv uneven", node("Conv", "x w", "y", pads=[0, 0, 1, 1], strides=[2, 2]), w=W)
case("Conv depthwise", node("Conv", "x w", "y", group=3), w=weights(6, 1, 3, 3))
for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    case(f"Conv {mode}", node("Conv", "x w", "y", auto_pad=mode, strides=[2, 2]), w=weights(4, 3, 2, 4))
T = weights(3, 4, 3, 3)
case("ConvTranspose", node("ConvTranspose", "x w b", "y", strides=[2, 2], pads=[1, 1, 1, 1]), w=T, b=weights(4))
case("ConvTranspose padded", node("ConvTranspose", "x w", "y", strides=[2, 2], output_padding=[1, 1]), w=T)
case("ConvTranspose uneven", node("ConvTranspose", "x w", "y", strides=[2, 2], pads=[0, 1, 1, 0]), w=T)
case("ConvTranspose shape", node("ConvTranspose", "x w", "y", strides=[2, 2], output_shape=[16, 24]), w=T)
case("ConvTranspose same", node("ConvTranspose", "x w", "y", strides=[2, 2], auto_pad="SAME_UPPER"), w=T)
case("ConvTranspose groups", node("ConvTranspose", "x w", "y", group=3), w=weights(3, 2, 3, 3))
FLAT = 3 * HEIGHT * WIDTH
case("Gemm", [node("Flatten", "x", "v"), node("Gemm", "v w b", "y")], w=weights(FLAT, 5), b=weights(5))
case("Gemm transposed", [node("Flatten", "x", "v"), node("Gemm", "v w", "y", transB=1, alpha=0.5)], w=weights(5, FLAT))
case("Gemm beta", [node("Flatten", "x", "v"), node("Gemm", "v w b", "y", beta=0.5)], w=weights(FLAT, 5), b=f(0.3))
case("MatMul", node("MatMul", "x w", "y"), w=weights(WIDTH, 5))
case("MatMul left", node("MatMul", "w x", "y"), w=weights(5, HEIGHT))
case("MatMul both", [node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x t", "y")])
case("Einsum", [node("Einsum", "x w", "y", equation="nchw,kc->nkhw")], w=weights(5, 3))
NORM: dict[str, Any] = {"s": weights(3), "b": weights(3), "m": weights(3), "v": weights(3, low=0.5)}
case("BatchNormalization", node("BatchNormalization", "x s b m v", "y", epsilon=1e-3), **NORM)
case("InstanceNormalization", node("InstanceNormalization", "x s b", "y"), s=NORM["s"], b=NORM["b"])
case("LayerNormalization", node("LayerNormalization", "x s b", "y"), s=weights(WIDTH), b=weights(WIDTH))
case("LayerNormalization 2 axes", node("LayerNormalization", "x s", "y", axis=-2), s=weights(HEIGHT, WIDTH))
case("GroupNormalization", node("GroupNormalization", "x s b", "y", num_groups=3), 21, s=weights(3), b=weights(3))
case("LRN", node("LRN", "x", "y", size=3, alpha=0.1))
case("LpNormalization", node("LpNormalization", "x", "y", axis=1))

for op in ("MaxPool", "AveragePool"):
    case(op, node(op, "x", "y", kernel_shape=[2, 2], strides=[2, 2]))
    case(f"{op} padded", node(op, "x", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]))
    case(f"{op} ceil", node(op, "x", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1))
    case(f"{op} uneven", node(op, "x", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]))
    case(f"{op} same", node(op, "x", "y", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"))
case("MaxPool dilated", node("MaxPool", "x", "y", kernel_shape=[3, 3], dilations=[2, 2]))
case("MaxPool after Relu", [node("Relu", "x", "r"), node("MaxPool", "r", "y", kernel_shape=[3, 3], pads=[0, 0, 2, 2])])
POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "count_include_pad": 1}
case("AveragePool counted", node("AveragePool", "x", "y", pads=[1, 1, 1, 1], **POOL))
case("AveragePool counted uneven", node("AveragePool", "x", "y", pads=[0, 0, 1, 1], **POOL))
case("LpPool", node("LpPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2]))
for op in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"):
    op = f"Reduce{op}"
    case(f"{op} old", node(op, "x", "y", axes=[2, 3]), 11)
    case(f"{op} flat", node(op, "x", "y", axes=[-1], keepdims=0), 11)
case("ReduceLogSum", [node("Exp", "x", "e"), node("ReduceLogSum", "e", "y", axes=[1])], 11)
case("ReduceSum", node("ReduceSum", "x a", "y", keepdims=0), a=i(1, 2))
case("ReduceMean new", node("ReduceMean", "x a", "y"), 18, a=i(-1))
case("ReduceMean none", node("ReduceMean", "x", "y", noop_with_empty_axes=1), 18)
for op in ("Softmax", "LogSoftmax"):
    case(op, node(op, "x", "y", axis=1))
    case(f"{op} old", node(op, "x", "y", axis=1), 11)
    case(f"{op} old last", node(op, "x", "y", axis=3), 11)
for op in ("ArgMax", "ArgMin"):
    case(op, node(op, "x", "y", axis=1, keepdims=0))
case("CumSum", node("CumSum", "x a", "y"), a=np.asarray(2, dtype=INT))

for mode in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"):
    for kind in ("linear", "cubic"):
        up = node("Resize", "x - s", "y", mode=kind, coordinate_transformation_mode=mode)
        case(f"Resize {kind} {mode}", up, s=f(1, 1, 2, 2))
    down = node("Resize", "x - - z", "y", mode="linear", coordinate_transformation_mode=mode)
    case(f"Resize down {mode}", down, z=i(1, 3, 5, 7))
for mode in ("half_pixel", "asymmetric"):
    for rule in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        near = node("Resize", "x - s", "y", mode="nearest", nearest_mode=rule, coordinate_transformation_mode=mode)
        case(f"Resize nearest {mode} {rule}", near, s=f(1, 1, 3, 2))
case("Resize sizes", node("Resize", "x - - z", "y", mode="nearest"), z=i(1, 3, 11, 17))
case("Resize axes", node("Resize", "x - s", "y", mode="linear", axes=[2, 3]), 18, s=f(2, 2))
KEYS = {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}
case("Resize outside", node("Resize", "x - s", "y", **KEYS), s=f(1, 1, 2, 2))
case("Resize channels", node("Resize", "x - s", "y", mode="nearest"), s=f(1, 2, 1, 1))
case("Resize 10", node("Resize", "x s", "y", mode="linear"), 10, s=f(1, 1, 2, 2))
case("Upsample", node("Upsample", "x s", "y", mode="nearest"), 9, s=f(1, 1, 2, 2))
case("Upsample linear", node("Upsample", "x s", "y", mode="linear"), 9, s=f(1, 1, 2, 2))
case("Upsample 7", node("Upsample", "x", "y", mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]), 7)

case("Concat", [node("Relu", "x", "r"), node("Concat", "x r", "y", axis=1)])
case("Concat constant", node("Concat", "x c", "y", axis=1), c=weights(1, 2, HEIGHT, WIDTH))
case("Split", [node("Split", "x", "a b", axis=3), node("Concat", "b a", "y", axis=3)])
case("Split sizes", [node("Split", "x s", "a b", axis=3), node("Concat", "b a", "y", axis=3)], s=i(5, 7))
case("Split old", [node("Split", "x", "a b", axis=3, split=[5, 7]), node("Concat", "b a", "y", axis=3)], 11)
case("Split num", [node("Split", "x", "a b", axis=2, num_outputs=2), node("Concat", "b a", "y", axis=3)], 18)
case("Slice", node("Slice", "x s e a t", "y"), s=i(1, -3), e=i(7, 2**63 - 1), a=i(2, 3), t=i(2, 1))
case("Slice back", node("Slice", "x s e a t", "y"), s=i(-1), e=i(-(2**63)), a=i(3), t=i(-1))
case("Slice back part", node("Slice", "x s e a t", "y"), s=i(7), e=i(2), a=i(3), t=i(-2))
case("Slice old", node("Slice", "x", "y", starts=[1, 0], ends=[100, 5], axes=[2, 3]), 9)
case("Gather one", node("Gather", "x c", "y", axis=1), c=np.asarray(-1, dtype=INT))
case("Gather some", node("Gather", "x c", "y", axis=3), c=i(3, 0, 7))
case("Gather run", node("Gather", "x c", "y", axis=3), c=i(2, 4, 6))
case("Gather table", node("Gather", "x c", "y", axis=3), c=np.asarray([[1, 2], [0, 5]], dtype=INT))
case("Gather found", [node("ArgMax", "x", "k", axis=1, keepdims=0), node("Gather", "t k", "y")], t=weights(3, 4))
case("GatherElements", [node("ArgMax", "x", "k", axis=1), node("GatherElements", "x k", "y", axis=1)])
case(
    "GatherND",
    [node("Transpose", "x", "t", perm=[1, 2, 3, 0]), node("GatherND", "t c", "y")],
    c=np.asarray([[0, 1], [2, 3]]),
)
case("ScatterND", [node("ScatterND", "x c u", "y")], c=np.asarray([[0, 1], [0, 2]]), u=weights(2, HEIGHT, WIDTH))
case("TopK", [node("TopK", "x k", "y z", axis=3)], k=i(3))
case("Trilu", node("Trilu", "x", "y", upper=0), k=i(0))
case(
    "OneHot",
    [node("ArgMax", "x", "k", axis=1, keepdims=0), node("OneHot", "k d v", "y")],
    d=i(3),
    v=f(-1, 2),
)
case("Pad", node("Pad", "x p v", "y"), p=i(0, 1, 2, 0, 0, 0, 1, 3), v=np.float32(0.5))
case("Pad cut", node("Pad", "x p", "y"), p=i(0, 0, -1, 0, 0, 0, 2, -2))
case("Pad reflect", node("Pad", "x p", "y", mode="reflect"), p=i(0, 0, 1, 2, 0, 0, 2, 1))
case("Pad edge", node("Pad", "x p", "y", mode="edge"), p=i(0, 0, 1, 2, 0, 0, 2, 1))
case("Pad wrap", node("Pad", "x p", "y", mode="wrap"), 19, p=i(0, 0, 1, 2, 0, 0, 2, 1))
case("Pad old", node("Pad", "x", "y", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.25), 10)
case("Pad axes", node("Pad", "x p - a", "y"), 18, p=i(1, 2), a=i(2))
GRID = weights(1, 4, 5, 2)
case("GridSample", node("GridSample", "x g", "y", align_corners=1), g=GRID)

case("Reshape", node("Reshape", "x s", "y"), s=i(1, 3, -1))
case("Reshape zero", node("Reshape", "x s", "y"), s=i(0, 0, -1))
case("Reshape flat", node("Reshape", "x s", "y"), s=i(1, -1))
case("Reshape split", node("Reshape", "x s", "y"), s=i(1, 3, 4, 2, WIDTH))
case("Reshape mixed", node("Reshape", "x s", "y"), s=i(1, HEIGHT, 3, WIDTH))
case(
    "Reshape shuffle",
    [
        node("Concat", "x x", "c", axis=1),
        node("Reshape", "c a", "d"),
        node("Transpose", "d", "e", perm=[1, 0, 2]),
        node("Reshape", "e b", "g"),
        node("Gather", "g k", "y", axis=0),
    ],
    a=i(3, 2, HEIGHT * WIDTH),
    b=i(2, -1, 3, HEIGHT, WIDTH),
    k=np.asarray(1, dtype=INT),
)
case(
    "Reshape computed",
    [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Concat", "n rest", "t", axis=0),
        node("Reshape", "x t", "y"),
    ],
    zero=i(0),
    rest=i(-1),
)
case("Flatten", node("Flatten", "x", "y"))
case("Flatten 2", node("Flatten", "x", "y", axis=2))
case("Squeeze", [node("ReduceMean", "x", "m", axes=[2, 3]), node("Squeeze", "m", "y", axes=[2, 3])], 11)
case("Squeeze input", [node("GlobalAveragePool", "x", "m"), node("Squeeze", "m a", "y")], a=i(3))
case("Unsqueeze", node("Unsqueeze", "x a", "y"), a=i(1, -1))
case("Unsqueeze old", node("Unsqueeze", "x", "y", axes=[2]), 11)
case("Transpose", node("Transpose", "x", "y", perm=[0, 2, 3, 1]))
case("Expand", [node("GlobalAveragePool", "x", "m"), node("Expand", "m s", "y")], s=i(1, 1, 4, 5))
case("Expand rank", node("Expand", "x s", "y"), s=i(1, 3, 1, WIDTH))
case("Tile", node("Tile", "x r", "y"), r=i(1, 2, 1, 3))
case("Tile ones", [node("GlobalAveragePool", "x", "m"), node("Tile", "m r", "y")], r=i(1, 1, 2, 3))
case("DepthToSpace", [node("Concat", "x x x x", "c", axis=1), node("DepthToSpace", "c", "y", blocksize=2)])
case(
    "DepthToSpace CRD",
    [node("Concat", "x x x x", "c", axis=1), node("DepthToSpace", "c", "y", blocksize=2, mode="CRD")],
)
case("SpaceToDepth", node("SpaceToDepth", "x", "y", blocksize=2))

ONE_PICTURE = {"GatherND", "ScatterND", "GridSample"}
NEWER = {"Swish"}
"""Operators younger than the newest opset that ONNX Runtime has."""


@pytest.mark.parametrize(("nodes", "constants", "opset"), CASES)
def test_same_as_onnx_runtime(
    nodes: list[NodeProto], constants: dict[str, Any], opset: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = save(tmp_path / "m.onnx", nodes, constants, opset=opset)
    module = import_onnx(path, CONTRACT)
    pictures = torch.from_numpy(weights(2, *SHAPE[1:], seed=7))
    singles = [module(picture).detach().numpy() for picture in torch.split(pictures, 1)]
    for picture, found in zip(torch.split(pictures, 1), singles, strict=True):
        (wanted, *_) = run(path, picture.numpy())
        assert found.dtype == wanted.dtype
        assert np.allclose(found, wanted, rtol=1e-4, atol=2e-5)
    if request.node.callspec.id in ONE_PICTURE:
        assert batch_note(module)
    else:
        assert not batch_note(module)
        assert np.allclose(module(pictures).detach().numpy(), np.concatenate(singles), rtol=1e-4, atol=1e-5)


def test_every_operator_has_a_case() -> None:
    tried = {item.op_type for param in CASES for item in param.values[0]}
    assert set(OPS) - tried == NEWER
