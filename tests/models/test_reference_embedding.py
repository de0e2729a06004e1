"""Embedding networks: the small one, and classifiers with a new last layer that keep their trained weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec, ModelSpec, Weights
from edgecv.errors import ModelError, ToolchainError

torch = pytest.importorskip("torch")

from edgecv.models.load import load_model  # noqa: E402  torch may be missing
from edgecv.models.reference_embedding import embedder, embedding_cnn  # noqa: E402
from edgecv.models.weights import save_module_state  # noqa: E402

FAMILY = FamilySpec("embedding", ("thing",))


def test_the_small_network() -> None:
    network = embedding_cnn(dims=20).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 64, 48)).shape == (2, 20)
    assert sum(part.numel() for part in embedding_cnn().parameters()) < 100_000


def test_a_backbone_keeps_its_weights_and_gets_a_new_last_layer(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    from torchvision.models import resnet18

    torch.manual_seed(0)
    trained = resnet18(weights=None).eval()
    save_module_state(tmp_path / "trained.safetensors", trained)
    spec = ModelSpec(
        "python:edgecv.models.reference_embedding:embedder",
        InputContract(size=(64, 64)),
        Weights(path="trained.safetensors"),
        {"backbone": "torchvision:resnet18", "dims": 24, "height": 64, "width": 64},
    )
    network = load_model(spec, family=FAMILY, base=tmp_path, cache=tmp_path / "cache", seed=1)
    inputs = torch.rand(1, 3, 64, 64)
    features = {}
    for name, module in (("old", trained.fc), ("new", network.backbone.fc)):
        module.register_forward_pre_hook(lambda _, given, name=name: features.__setitem__(name, given[0]))
    with torch.no_grad():
        trained(inputs)
        assert network(inputs).shape == (1, 24)
    np.testing.assert_allclose(features["new"], features["old"], rtol=1e-6)
    # Saved whole and read again it is the same network.
    save_module_state(tmp_path / "trained.safetensors", network)
    again = load_model(spec, family=FAMILY, base=tmp_path, cache=tmp_path / "cache", seed=2)
    with torch.no_grad():
        assert torch.equal(again(inputs), network(inputs))


@pytest.mark.parametrize("name", ["timm:mobilenetv4_conv_small", "timm:deit_tiny_patch16_224"])
def test_backbones_of_timm(name: str) -> None:
    pytest.importorskip("timm")
    with torch.no_grad():
        assert embedder(backbone=name, dims=16).eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 16)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("onnx:x.onnx", "allowed are timm:NAME and torchvision:NAME"),
        ("resnet18", "allowed are timm:NAME"),
        ("torchvision:resnet1", "no model 'resnet1'"),
        ("torchvision:squeezenet1_0", "has no linear layer"),
    ],
)
def test_what_is_no_backbone(name: str, says: str) -> None:
    with pytest.raises((ModelError, ToolchainError), match=says):
        embedder(backbone=name)
