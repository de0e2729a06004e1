"""The reference networks: shapes, names, export, and published weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec, FamilySpec, ModelSpec, Weights
from edgecv.data.readers import open_reader
from edgecv.models.load import load_model
from edgecv.models.reference import cifar_resnet20, digits_cnn
from edgecv.models.weights import load_module_state
from edgecv.optimize.batches import make_batches
from edgecv.optimize.finetune import class_score

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def parameters(module: torch.nn.Module) -> int:
    return sum(item.numel() for item in module.parameters())


def test_digits_cnn_is_small_and_has_every_kind_of_block() -> None:
    module = digits_cnn().eval()
    assert module(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert 100_000 <= parameters(module) <= 300_000
    convolutions = [item for item in module.modules() if isinstance(item, torch.nn.Conv2d)]
    assert any(item.groups == item.in_channels > 1 for item in convolutions)
    assert any(item.kernel_size == (1, 1) for item in convolutions)


def test_digits_cnn_takes_another_number_of_classes() -> None:
    assert digits_cnn(num_classes=3, width=8).eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


def test_resnet20_has_the_usual_names_and_size() -> None:
    module = cifar_resnet20()
    names = set(module.state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.weight"} <= names
    assert parameters(module) == 269_722  # He et al. state 0.27 million


def test_resnet20_shortcut_keeps_every_second_pixel_and_pads_channels() -> None:
    block = cifar_resnet20().eval().layer2[0]
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    inputs = torch.rand(1, 16, 4, 4)
    outputs = block(inputs)
    assert outputs.shape == (1, 32, 2, 2)
    assert torch.equal(outputs[:, 8:24], inputs[:, :, ::2, ::2])
    assert outputs[:, :8].abs().sum() == 0
    assert outputs[:, 24:].abs().sum() == 0


@pytest.mark.parametrize(("module", "shape"), [(digits_cnn(), (1, 1, 32, 32)), (cifar_resnet20(), (1, 3, 32, 32))])
def test_reference_networks_export(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.rand(shape)
    exported = torch.export.export(module.eval(), (inputs,)).module()
    assert torch.allclose(exported(inputs), module(inputs), atol=1e-5)


def test_shipped_digits_weights_reach_their_accuracy(root: Path) -> None:
    module = digits_cnn().eval()
    path = root / "recipes" / "classification" / "digits.safetensors"
    assert path.stat().st_size <= 1_500_000
    load_module_state(path, module)
    contract = InputContract(size=(32, 32), color="gray", mean=(0.0,), std=(1.0,))
    reader = open_reader(DataSpec(kind="sklearn-digits", split="test"), base=root, labels=DIGITS)
    inputs, truths = next(make_batches(reader, contract, batch_size=len(reader))(0))
    with torch.no_grad():
        score = class_score(FamilySpec(kind="classification", labels=DIGITS))(
            module(torch.from_numpy(inputs)), torch.from_numpy(truths)
        )
    assert score >= 0.98


@pytest.mark.build
def test_published_resnet20_weights_load_strictly_and_classify(shared_data: Path, tmp_path: Path) -> None:
    labels = tuple((shared_data / "cifar10-mini" / "labels.txt").read_text().split())
    family = FamilySpec(kind="classification", labels=labels)
    contract = InputContract(size=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    weights = Weights(path="models/resnet20_cifar10/resnet20-12fca82f.th", strip_prefix="module.")
    spec = ModelSpec(source="python:edgecv.models.reference:cifar_resnet20", input=contract, weights=weights)
    module = load_model(spec, family=family, base=shared_data, cache=tmp_path, seed=0)
    data = DataSpec(kind="imagefolder", path="cifar10-mini/test", limit=200)
    reader = open_reader(data, base=shared_data, labels=labels)
    inputs, truths = next(make_batches(reader, contract, batch_size=len(reader))(0))
    with torch.no_grad():
        score = class_score(family)(module(torch.from_numpy(inputs)), torch.from_numpy(truths))
    # 80.4 % on all 1,000 lossy pictures; three standard deviations of 200 draws are 8.4 points.
    assert 0.72 <= score <= 0.89
