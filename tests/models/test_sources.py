"""Networks from libraries and from the user's own code, and what is said when that fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgecv.core.contract import InputContract
from edgecv.core.recipe import ModelSpec
from edgecv.errors import ModelError, ToolchainError
from edgecv.models.outputs import TensorOutputs
from edgecv.models.sources import build_module, split_source

COLOR = InputContract(size=(32, 32))
GRAY = InputContract(size=(32, 32), color="gray", mean=(0.0,), std=(1.0,))

USER_CODE = """
import torch

def network(num_classes=2, width=4):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(width, num_classes),
    )

def fixed():
    return torch.nn.Identity()

def wrong():
    return "a network"

def failing(num_classes):
    raise OSError("the disk is gone")
"""


def build(source: str, base: Path = Path(), *, num_classes: int | None = 5, **options: Any) -> torch.nn.Module:
    return build_module(ModelSpec(source=source, input=COLOR, options=options), num_classes=num_classes, base=base)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A recipe folder with a module of the user's, imported anew for each test."""
    (tmp_path / "my_nets.py").write_text(USER_CODE)
    yield tmp_path
    sys.modules.pop("my_nets", None)


def test_torchvision_gets_the_classes() -> None:
    module = build("torchvision:shufflenet_v2_x0_5")
    assert not module.training
    assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


def test_options_win_over_the_labels() -> None:
    assert build("torchvision:shufflenet_v2_x0_5", num_classes=7)(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_timm_gets_classes_and_gray_input() -> None:
    spec = ModelSpec(source="timm:resnet10t", input=GRAY)
    module = build_module(spec, num_classes=4, base=Path())
    assert module(torch.zeros(1, 1, 32, 32)).shape == (1, 4)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("torchvision:resnet81", "resnet18"),
        ("timm:mobilenetv4_conv_smal", "mobilenetv4_conv_small"),
        ("timm:hf_hub:someone/resnet18", "resnet18"),
        ("torchvison:resnet18", "torchvision"),
        ("python:edgecv.models.reference:digit_cnn", "digits_cnn"),
    ],
)
def test_unknown_names_come_with_a_suggestion(source: str, said: str) -> None:
    with pytest.raises(ModelError, match=f"Did you mean .*{said}"):
        build(source)


@pytest.mark.parametrize(("source", "option"), [("torchvision:resnet18", "weights"), ("timm:resnet10t", "pretrained")])
def test_libraries_never_fetch_weights(source: str, option: str) -> None:
    with pytest.raises(ModelError, match=r"model\.weights"):
        build(source, **{option: "DEFAULT"})


def test_wrong_options_are_named() -> None:
    with pytest.raises(ModelError, match="'depht': 3"):
        build("torchvision:resnet18", depht=3)


@pytest.mark.parametrize("library", ["torchvision", "timm", "transformers"])
def test_missing_library_says_how_to_install(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ToolchainError, match=rf"{library} is not installed; run: pip install 'edgecv\[host\]'"):
        build(f"{library}:anything")


def test_function_beside_the_recipe_is_found(folder: Path) -> None:
    before = list(sys.path)
    module = build("python:my_nets:network", folder, width=6)
    assert module(torch.zeros(1, 3, 8, 8)).shape == (1, 5)
    assert module[0].out_channels == 6
    assert sys.path == before


def test_num_classes_only_goes_where_it_is_taken(folder: Path) -> None:
    assert isinstance(build("python:my_nets:fixed", folder), torch.nn.Identity)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("python:my_nets:wrong", "gave a str; it must return a torch.nn.Module"),
        ("python:my_nets:failing", "OSError: the disk is gone"),
        ("python:my_nets", "python:MODULE:FUNCTION"),
        ("python:no_such_nets:network", "there is no Python module 'no_such_nets'"),
        ("onnx:model.onnx", "model.onnx"),
    ],
)
def test_user_functions_that_fail_are_explained(folder: Path, source: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        build(source, folder)


def test_a_module_that_does_not_import(folder: Path) -> None:
    (folder / "broken_nets.py").write_text("1 / 0\n")
    with pytest.raises(ModelError, match="importing broken_nets failed: ZeroDivisionError"):
        build("python:broken_nets:network", folder)
    (folder / "needy_nets.py").write_text("import no_such_package\n")
    with pytest.raises(ToolchainError, match="needs the Python package 'no_such_package'"):
        build("python:needy_nets:network", folder)


def test_source_without_a_kind() -> None:
    with pytest.raises(ModelError, match=r"model\.source is 'resnet18'"):
        split_source("resnet18")


@pytest.mark.build
def test_transformers_by_class_name_and_by_folder(tmp_path: Path) -> None:
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 16,
    }
    module = build("transformers:ViTForImageClassification", **small)
    assert isinstance(module, TensorOutputs)
    outputs = module(torch.zeros(1, 3, 32, 32))
    assert isinstance(outputs, torch.Tensor)
    assert outputs.shape == (1, 5)
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text(json.dumps({"model_type": "vit", **small}))
    assert build("transformers:vit", tmp_path)(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    with pytest.raises(ModelError, match="Did you mean ViTForImageClassification"):
        build("transformers:VitForImageClassification")


SEGFORMER = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 8, 16, 16],
    "decoder_hidden_size": 8,
    "num_attention_heads": [1, 1, 2, 2],
}


@pytest.mark.build
def test_transformers_for_maps_of_classes_heatmaps_and_depth(tmp_path: Path) -> None:
    """A quarter of the picture's size for SegFormer and ViTPose, all of it for DPT; the folder knows which it is."""
    pictures = torch.zeros(1, 3, 64, 64)
    assert build("transformers:SegformerForSemanticSegmentation", **SEGFORMER)(pictures).shape == (1, 5, 16, 16)
    told = {"model_type": "segformer", "architectures": ["SegformerForSemanticSegmentation"], **SEGFORMER}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(told))
    assert build("transformers:mine", tmp_path)(pictures).shape == (1, 5, 16, 16)
    vit = {"image_size": [64, 64], "patch_size": [16, 16], "hidden_size": 16, "num_hidden_layers": 1}
    vit |= {"num_attention_heads": 2, "model_type": "vitpose_backbone", "out_indices": [1]}
    pose = build("transformers:VitPoseForPoseEstimation", num_classes=17, backbone_config=vit, use_simple_decoder=True)
    assert pose(pictures).shape == (1, 17, 16, 16)
    dpt = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    dpt |= {"image_size": 64, "patch_size": 16, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 8, 8]}
    depth = build("transformers:DPTForDepthEstimation", num_classes=None, fusion_hidden_size=8, is_hybrid=False, **dpt)
    assert depth(pictures).shape == (1, 64, 64)
    with pytest.raises(ModelError, match=r"\.\.\.ForSemanticSegmentation.*Did you mean SegformerForSemanticSeg"):
        build("transformers:SegFormerForSemanticSegmentation")
