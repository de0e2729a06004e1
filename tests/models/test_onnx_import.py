"""ONNX files as torch modules: what is refused, what is put back together, names, batches, and the shared models."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.recipe import ModelSpec
from edgecv.errors import ModelError
from edgecv.models.load import output_names
from edgecv.models.onnx_import import batch_note, import_onnx
from edgecv.models.onnx_import.check import TOLERANCE, batch_problem, check_same, relative_error, sample
from edgecv.models.onnx_import.names import Names, layer_name
from edgecv.models.onnx_import.read import read_onnx
from edgecv.models.sources import build_module
from tests.models.onnx_files import HEIGHT, SHAPE, WIDTH, node, run, save, weights

CONTRACT = InputContract(size=(HEIGHT, WIDTH))
KERNEL = weights(4, 3, 3, 3)
SHARED = {
    "fastestdet/FastestDet.onnx": (352, 352),
    "osnet_x0_25_msmt17/osnet_x0_25_msmt17.onnx": (256, 128),
    "sci_240x320/sci_240x320.onnx": (240, 320),
    "sinet_portrait/SINet.onnx": (320, 320),
    "ultraface_rfb_320/version-RFB-320.onnx": (240, 320),
    "yolox_nano/yolox_nano.onnx": (416, 416),
    "yunet_n_320/yunet_n_320_320.onnx": (320, 320),
}


def layers(module: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, part in module.named_modules() if isinstance(part, kind)]


@pytest.mark.build
@pytest.mark.parametrize("file", SHARED)
def test_shared_models_compute_the_same_and_export(file: str, shared_data: Path) -> None:
    contract = InputContract(size=SHARED[file], range=(0.0, 255.0) if file.startswith("y") else (0.0, 1.0))
    module = import_onnx(shared_data / "models" / file, contract)
    picture = sample(contract, (1, 3, *contract.size), seed=5)
    read = read_onnx(shared_data / "models" / file, contract)
    assert check_same(read, module, picture) <= TOLERANCE
    assert not batch_note(module)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        exported = torch.export.export(module, (picture,)).module()(picture)
        found = module(picture)
    pairs = zip(*((item,) if isinstance(item, torch.Tensor) else item for item in (exported, found)), strict=True)
    assert max(relative_error(one.numpy(), other.numpy()) for one, other in pairs) <= TOLERANCE


@pytest.mark.build
def test_yolox_gets_its_activations_back(shared_data: Path) -> None:
    contract = InputContract(size=(416, 416), range=(0.0, 255.0))
    module = import_onnx(shared_data / "models" / "yolox_nano" / "yolox_nano.onnx", contract)
    assert len(layers(module, nn.SiLU)) == 104
    assert len(layers(module, nn.Conv2d)) == 113


def test_weights_learn_and_constants_do_not(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w b", "c"), node("Mul", "c s", "y")]
    path = save(tmp_path / "m.onnx", nodes, {"w": KERNEL, "b": weights(4), "s": weights(4, 1, 1)})
    module = import_onnx(path, CONTRACT)
    module(torch.zeros(2, *SHAPE[1:])).sum().backward()
    assert {name: part.grad is not None for name, part in module.named_parameters()} == {
        "the_conv_c.weight": True,
        "the_conv_c.bias": True,
    }
    assert [name for name, _ in module.named_buffers()] == ["the_mul_y_constant"]


def test_the_module_can_be_copied_and_keeps_its_names(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [node("Relu", "x", "a"), node("Neg", "x", "b")], outputs=("b", "a"))
    module = copy.deepcopy(import_onnx(path, CONTRACT))
    picture = torch.randn(SHAPE)
    assert all(torch.equal(*pair) for pair in zip(module(picture), (-picture, picture.relu()), strict=True))
    assert output_names(ModelSpec(source=f"onnx:{path.name}", input=CONTRACT), base=tmp_path) == ("b", "a")
    assert output_names(ModelSpec(source="timm:resnet18", input=CONTRACT), base=tmp_path) == ()


def test_layers_are_named_as_in_the_file() -> None:
    assert layer_name("stem.0.conv.weight", "Conv_3") == "stem.0.conv"
    assert layer_name("onnx::Conv_643", "/backbone/stage2/conv/Conv") == "backbone.stage2.conv"
    assert layer_name("643", "/conv2/conv2.0/gate/Conv") == "conv2.0.gate"
    assert layer_name("model/head/kernel:0", "n") == "model.head"
    assert layer_name("", "Conv_3") == "Conv_3"
    assert layer_name("a.training.weight", "") == "a.training_"


def test_no_name_is_a_layer_and_a_folder() -> None:
    names = Names()
    taken = [names.take(name) for name in ("a.b", "a.b", "a", "a.b.c", "c")]
    assert taken[:3] == ["a.b", "a.b_1", "a_1"]
    assert len(set(taken)) == 5
    assert not any(other.startswith(one + ".") for one in taken for other in taken)


def test_a_layer_that_is_called_twice_is_one_module(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "r"), node("Conv", "x w", "a"), node("Conv", "r w", "b"), node("Add", "a b", "y")]
    module = import_onnx(save(tmp_path / "m.onnx", nodes, {"w": KERNEL}), CONTRACT)
    assert len(layers(module, nn.Conv2d)) == 1


HARD = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6), "sixth": np.float32(1 / 6)}
ERF = {"root": np.float32(2**0.5), "inverse": np.float32(2**-0.5), "one": np.float32(1), "half": np.float32(0.5)}
SHIFTED = [node("Add", "x three", "a"), node("Clip", "a zero six", "c")]
RISE = [node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "e one", "o")]
RISE_BY_PRODUCT = [node("Mul", "x inverse", "d"), node("Erf", "d", "e"), node("Add", "one e", "o")]


@pytest.mark.parametrize(
    ("kind", "nodes"),
    [
        (nn.SiLU, [node("Sigmoid", "x", "s"), node("Mul", "x s", "y")]),
        (nn.SiLU, [node("Sigmoid", "x", "s"), node("Mul", "s x", "y")]),
        (nn.Hardsigmoid, [*SHIFTED, node("Div", "c six", "y")]),
        (nn.Hardsigmoid, [*SHIFTED, node("Mul", "c sixth", "y")]),
        (nn.Hardswish, [*SHIFTED, node("Div", "c six", "h"), node("Mul", "x h", "y")]),
        (nn.Hardswish, [*SHIFTED, node("Mul", "x c", "h"), node("Div", "h six", "y")]),
        (nn.Hardswish, [node("HardSigmoid", "x", "h", alpha=1 / 6), node("Mul", "x h", "y")]),
        (nn.Mish, [node("Softplus", "x", "s"), node("Tanh", "s", "t"), node("Mul", "x t", "y")]),
        (nn.GELU, [*RISE, node("Mul", "x o", "p"), node("Mul", "p half", "y")]),
        (nn.GELU, [*RISE_BY_PRODUCT, node("Mul", "x half", "p"), node("Mul", "p o", "y")]),
        (nn.GELU, [*RISE, node("Mul", "o half", "p"), node("Mul", "x p", "y")]),
        (nn.ReLU6, [node("Clip", "x zero six", "y")]),
    ],
)
def test_spelled_out_activations_become_modules(kind: type[nn.Module], nodes: list[Any], tmp_path: Path) -> None:
    module = import_onnx(save(tmp_path / "m.onnx", nodes, {**HARD, **ERF}), CONTRACT)
    assert len(layers(module, kind)) == 1
    assert sum(item.op.startswith("call") for item in module.graph.nodes) == 1


def test_an_inner_value_that_is_read_elsewhere_stays(tmp_path: Path) -> None:
    nodes = [node("Sigmoid", "x", "s"), node("Mul", "x s", "m"), node("Add", "m s", "y")]
    module = import_onnx(save(tmp_path / "m.onnx", nodes), CONTRACT)
    assert len(layers(module, nn.SiLU)) == 1
    picture = torch.randn(SHAPE)
    assert torch.allclose(module(picture), picture * picture.sigmoid() + picture.sigmoid(), atol=1e-6)


@pytest.mark.parametrize("square", ["Pow", "Mul"])
def test_a_spelled_out_layer_norm_becomes_a_module(square: str, tmp_path: Path) -> None:
    nodes = [
        node("ReduceMean", "x", "m", axes=[-1]),
        node("Sub", "x m", "d"),
        node("Pow", "d two", "q") if square == "Pow" else node("Mul", "d d", "q"),
        node("ReduceMean", "q", "v", axes=[-1]),
        node("Add", "v eps", "e"),
        node("Sqrt", "e", "r"),
        node("Div", "d r", "n"),
        node("Mul", "n norm.weight", "g"),
        node("Add", "g norm.bias", "y"),
    ]
    constants = {"two": np.float32(2), "eps": np.float32(1e-5)}
    path = save(
        tmp_path / "m.onnx", nodes, {**constants, "norm.weight": weights(WIDTH), "norm.bias": weights(WIDTH, seed=1)}
    )
    module = import_onnx(path, CONTRACT)
    assert len(layers(module, nn.LayerNorm)) == 1
    assert sum(item.op.startswith("call") for item in module.graph.nodes) == 1


@pytest.mark.parametrize("half", [0, 1])
def test_halves_of_a_channel_shuffle_become_slices(half: int, tmp_path: Path) -> None:
    nodes = [
        node("Concat", "x x", "c", axis=1),
        node("Reshape", "c a", "d"),
        node("Transpose", "d", "e", perm=[1, 0, 2]),
        node("Reshape", "e b", "g"),
        node("Gather", "g k", "y", axis=0),
    ]
    shapes = {"a": np.asarray([3, 2, HEIGHT * WIDTH]), "b": np.asarray([2, -1, 3, HEIGHT, WIDTH])}
    module = import_onnx(save(tmp_path / "m.onnx", nodes, {**shapes, "k": np.asarray(half)}), CONTRACT)
    pictures = torch.randn(2, *SHAPE[1:])
    assert torch.equal(module(pictures), torch.cat([pictures, pictures], 1)[:, half::2])
    assert sum(item.op.startswith("call") for item in module.graph.nodes) == 2


def test_a_product_and_a_sum_are_one_linear_layer(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x fc.weight", "m"), node("Add", "m b", "y")]
    module = import_onnx(save(tmp_path / "m.onnx", nodes, {"fc.weight": weights(WIDTH, 5), "b": weights(5)}), CONTRACT)
    assert layers(module, nn.Linear) == ["fc"]
    assert module.get_submodule("fc").bias is not None
    assert sum(item.op.startswith("call") for item in module.graph.nodes) == 1


def test_open_sizes_are_those_of_the_recipe(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "c"), node("Shape", "c", "s"), node("Gather", "s two", "h"), node("Flatten", "c", "y")]
    path = save(tmp_path / "m.onnx", nodes, {"w": KERNEL, "two": np.asarray(2)}, shape=("n", 3, "h", "w"))
    assert import_onnx(path, CONTRACT)(torch.zeros(2, *SHAPE[1:])).shape == (2, 4 * 6 * 10)


def test_channels_last_inputs_take_channels_first(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [node("Relu", "x", "y")], shape=(1, HEIGHT, WIDTH, 3))
    picture = torch.randn(SHAPE)
    assert torch.equal(import_onnx(path, CONTRACT)(picture), picture.relu().permute(0, 2, 3, 1))


def test_a_class_token_is_repeated_for_each_picture(tmp_path: Path) -> None:
    nodes = [
        node("Reshape", "x s", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1]),
        node("Concat", "token t", "y", axis=1),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"s": np.asarray([1, 3, -1]), "token": weights(1, 1, 3)})
    module = import_onnx(path, CONTRACT)
    assert module(torch.zeros(4, *SHAPE[1:])).shape == (4, 1 + HEIGHT * WIDTH, 3)
    assert not batch_note(module)


def test_a_graph_for_one_picture_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [node("ReduceMean", "x", "y", axes=[0, 1])])
    module = import_onnx(path, CONTRACT)
    assert "the_reducemean_y" in batch_note(module)
    assert module(torch.zeros(SHAPE)).shape == (1, 1, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"one picture at a time.*the_reducemean_y"):
        module(torch.zeros(2, *SHAPE[1:]))


def test_a_branch_with_a_known_condition_is_taken(tmp_path: Path) -> None:
    def branch(op: str) -> onnx.GraphProto:
        out = onnx.helper.make_tensor_value_info("out", TensorProto.FLOAT, list(SHAPE))
        return onnx.helper.make_graph([onnx.helper.make_node(op, ["x"], ["out"])], op, [], [out])

    choose = node("If", "yes", "y", then_branch=branch("Neg"), else_branch=branch("Relu"))
    path = save(tmp_path / "m.onnx", [choose], {"yes": np.asarray(True)})
    assert torch.equal(import_onnx(path, CONTRACT)(torch.ones(SHAPE)), -torch.ones(SHAPE))


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    nodes = [
        node("Cast", "x", "h", to=TensorProto.FLOAT16),
        node("Conv", "h w", "c"),
        node("Cast", "c", "y", to=TensorProto.FLOAT),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"w": KERNEL.astype(np.float16)})
    module = import_onnx(path, CONTRACT)
    assert module.get_submodule(layers(module, nn.Conv2d)[0]).weight.dtype == torch.float32
    picture = weights(*SHAPE)
    assert np.allclose(module(torch.from_numpy(picture)).detach().numpy(), run(path, picture)[0], atol=0.02)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([node("Det", "x", "y")], "operator Det of node 'the_det_y' is not supported.*standard operators"),
        ([node("Sigmoidd", "x", "y", domain="com.acme")], r"com\.acme\.Sigmoidd of node 'the_sigmoidd_y'"),
        ([node("NonZero", "x", "y")], "NonZero of node 'the_nonzero_y'.*without its post-processing"),
        ([node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")], "quantised.*float model"),
        ([node("MaxPool", "x", "y i", kernel_shape=[2, 2])], "MaxPool of node 'the_maxpool_y'.*maxima"),
        ([node("Resize", "x - s", "y", mode="linear", antialias=1)], "Resize of node 'the_resize_y': antialias"),
        ([node("Conv", "x x", "y")], "Conv of node 'the_conv_y': its weight.*depends on the picture"),
    ],
)
def test_what_is_not_supported_is_named_with_its_node(nodes: list[Any], said: str, tmp_path: Path) -> None:
    outputs = ("y", "i") if "y i" in " ".join(nodes[0].output) else ("y",)
    constants: dict[str, Any] = {"s": np.float32(0.1), "z": np.uint8(3)}
    if nodes[0].op_type == "Resize":
        constants["s"] = np.asarray([1, 1, 2, 2], dtype=np.float32)
    path = save(tmp_path / "m.onnx", nodes, constants, opset=18, outputs=outputs)
    with pytest.raises(ModelError, match=f"(?s)m.onnx.*{said}") as caught:
        import_onnx(path, CONTRACT)
    assert caught.value.exit_code == 2


def test_a_fixed_shape_for_another_size_is_explained(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [node("Reshape", "x s", "y")],
        {"s": np.asarray([1, 3, 100])},
        shape=("n", 3, "h", "w"),
    )
    with pytest.raises(ModelError, match=r"the_reshape_y.*another input size"):
        import_onnx(path, CONTRACT)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12\x02hi" * 40])
def test_broken_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        import_onnx(path, CONTRACT)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx"):
        build_module(ModelSpec(source="onnx:gone.onnx", input=CONTRACT), num_classes=None, base=tmp_path)


def test_an_input_of_another_size_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [node("Relu", "x", "y")])
    with pytest.raises(ModelError, match=r"fixed shape \[1, 3, 8, 12\].*\[1, 3, 16, 16\]"):
        import_onnx(path, InputContract(size=(16, 16)))


def test_a_whole_number_input_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [node("Neg", "x", "y")], kind=TensorProto.INT32)
    with pytest.raises(ModelError, match="int32; a float input"):
        import_onnx(path, CONTRACT)


def test_an_old_opset_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [node("Relu", "x", "y")], opset=6)
    with pytest.raises(ModelError, match="opset 6"):
        import_onnx(path, CONTRACT)


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/hostname", "gone.bin"])
def test_weights_are_read_from_the_files_folder_only(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(KERNEL.tobytes())
    path = save(folder / "m.onnx", [node("Conv", "x w", "y")], {"w": KERNEL})
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=place)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside its folder" if place != "gone.bin" else "not there"):
        import_onnx(path, CONTRACT)


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [node("Conv", "x w", "y")], {"w": KERNEL})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.bin", size_threshold=0)
    assert (tmp_path / "m.bin").is_file()
    module = import_onnx(path, CONTRACT)
    assert np.array_equal(module.state_dict()["the_conv_y.weight"].numpy(), KERNEL)


def test_a_wrong_import_names_the_first_node_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv.models.onnx_import.ops import OPS

    nodes = [node("Neg", "x", "n"), node("Relu", "n", "r"), node("Exp", "r", "y")]
    path = save(tmp_path / "m.onnx", nodes)
    monkeypatch.setitem(OPS, "Relu", lambda builder, call: builder.fn(torch.abs, call.tensor(0)))
    with pytest.raises(ModelError, match=r"output 'y' differs.*first node that differs is 'the_relu_r' \(Relu\)"):
        import_onnx(path, CONTRACT)


def test_pictures_that_are_mixed_are_found() -> None:
    class Mixing(nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.flip(0)

    assert "mixes" in batch_problem(Mixing(), torch.randn(2, 3, 4, 4))  # type: ignore[arg-type]
    assert batch_problem(nn.Identity(), torch.randn(2, 3, 4, 4)) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "wanted", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.2], [1.0, 2.0], 0.1),
        ([np.nan, np.inf], [np.nan, np.inf], 0.0),
        ([np.nan], [1.0], np.inf),
        ([1e-8], [2e-8], 0.0),
        ([1.0], [1.0, 2.0], np.inf),
        ([1, 2], [1, 3], 0.5),
        ([], [], 0.0),
    ],
)
def test_relative_error(found: list[float], wanted: list[float], error: float) -> None:
    assert relative_error(found, wanted) == pytest.approx(error)


def test_options_have_no_place(tmp_path: Path) -> None:
    save(tmp_path / "m.onnx", [node("Relu", "x", "y")])
    spec = ModelSpec(source="onnx:m.onnx", input=CONTRACT, options={"width": 2})
    with pytest.raises(ModelError, match=r"model\.options"):
        build_module(spec, num_classes=None, base=tmp_path)
