from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.core.recipe import CalibrationSpec, Quantize, Recipe
from edgecv.errors import RecipeError
from edgecv.recipe.load import load_recipe
from edgecv.recipe.starter import starter_recipe


def loaded(text: str, folder: Path, *, weights: str | None = None) -> Recipe:
    """The recipe that the text is once its data are in place."""
    (folder / "data" / "train").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "val").mkdir(exist_ok=True)
    (folder / "labels.txt").write_text("cat\ndog\n")
    if weights:
        (folder / weights).write_bytes(b"")
    path = folder / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path, env={}).recipe


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    text = starter_recipe("python:my_nets.small:build", size=(96, 128), targets=["raspberry-pi-5", "iphone-15"])
    recipe = loaded(text, tmp_path)
    assert recipe.name == "build"
    assert recipe.model.input.size == (96, 128)
    assert recipe.family.labels == ("cat", "dog")
    assert recipe.targets == ("raspberry-pi-5", "iphone-15")
    assert isinstance(recipe.data.calibration, CalibrationSpec)
    assert recipe.steps == (Quantize("ptq"),)


def test_half_of_it_explains_the_other_half() -> None:
    lines = starter_recipe("python:m:f").splitlines()
    assert sum("#" in line for line in lines) >= 12


def test_the_steps_it_offers_are_sound_too(tmp_path: Path) -> None:
    text = starter_recipe("python:m:f").replace("  # - ", "  - ")
    text = text.replace("  - quantize: {method: ptq, scheme: portable}\n", "")
    assert len(loaded(text, tmp_path).steps) == 3


def test_a_transformer_gets_smooth_quant(tmp_path: Path) -> None:
    recipe = loaded(starter_recipe("transformers:google/vit-base-patch16-224"), tmp_path)
    assert recipe.name == "vit-base-patch16-224"
    assert recipe.steps == (Quantize("ptq", smooth_quant=True),)


@pytest.mark.parametrize(
    ("source", "name"),
    [("python:m:Build It", "build-it"), ("python:m:f: x # y", "x-y"), ("transformers:123", "123")],
)
def test_odd_names_are_quoted(tmp_path: Path, source: str, name: str) -> None:
    recipe = loaded(starter_recipe(source, data="./data"), tmp_path)
    assert (recipe.model.source, recipe.name) == (source, name)


@pytest.mark.parametrize("source", ["resnet18", "keras:x", "timm:", ""])
def test_sources_that_do_not_exist(source: str) -> None:
    with pytest.raises(RecipeError, match="torchvision:NAME, timm:NAME"):
        starter_recipe(source)


def test_an_onnx_file_tells_its_size(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    for name, shape in (("rgb", [1, 3, 64, 96]), ("gray", ["n", 1, 28, 28]), ("nhwc", [1, 32, 48, 3])):
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        )
        save(helper.make_model(graph), str(tmp_path / f"{name}.onnx"))
    rgb = loaded(starter_recipe("onnx:rgb.onnx", base=tmp_path), tmp_path)
    assert (rgb.name, rgb.model.input.size, rgb.model.input.color) == ("rgb", (64, 96), "rgb")
    assert (rgb.model.weights, rgb.model.input.mean) == (None, (0.0, 0.0, 0.0))
    gray = loaded(starter_recipe("onnx:gray.onnx", base=tmp_path), tmp_path)
    assert (gray.model.input.size, gray.model.input.mean, gray.model.input.std) == ((28, 28), (0.0,), (1.0,))
    nhwc = loaded(starter_recipe("onnx:nhwc.onnx", base=tmp_path), tmp_path)
    assert nhwc.model.input.size == (32, 48)


@pytest.mark.parametrize("content", [b"not onnx", b""])
def test_an_onnx_file_that_cannot_be_read_gets_the_usual_size(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert "size: [224, 224]" in starter_recipe("onnx:m.onnx", base=tmp_path)
    assert "size: [224, 224]" in starter_recipe("onnx:gone.onnx", base=tmp_path)


@pytest.mark.build
def test_torchvision_models_get_their_own_values(tmp_path: Path) -> None:
    recipe = loaded(starter_recipe("torchvision:resnet18"), tmp_path, weights="resnet18.safetensors")
    shape = recipe.model.input
    assert (shape.size, shape.resize, shape.crop_ratio) == ((224, 224), "crop", 0.875)
    assert (shape.mean, shape.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert len(recipe.family.labels) == 1000
    assert "size: [300, 300]" in starter_recipe("torchvision:efficientnet_b3")
    with pytest.raises(RecipeError, match=r"did you mean 'mobilenet_v3_small'"):
        starter_recipe("torchvision:mobilenetv3_small")


@pytest.mark.build
def test_timm_models_get_their_own_values(tmp_path: Path) -> None:
    recipe = loaded(starter_recipe("timm:deit_tiny_patch16_224"), tmp_path, weights="deit_tiny_patch16_224.safetensors")
    assert (recipe.model.input.crop_ratio, recipe.model.input.interpolation) == (0.9, "cubic")
    assert recipe.steps == (Quantize("ptq", smooth_quant=True),)
    with pytest.raises(RecipeError, match=r"did you mean 'resnet18'"):
        starter_recipe("timm:resnet-18")
