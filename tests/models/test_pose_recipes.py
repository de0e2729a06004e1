"""The ready recipes of pose networks: outputs fit their heads, and published files hold the weights that they name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402

from edgecv.core.recipe import Weights  # noqa: E402
from edgecv.models.load import build_model, check_outputs, load_model, output_specs  # noqa: E402
from edgecv.recipe.load import load_recipe  # noqa: E402

SHAPES = {"vitpose-base-simple": (1, 17, 64, 48), "face-landmarks": (1, 136)}


@pytest.mark.build
@pytest.mark.parametrize("name", SHAPES)
def test_the_network_fits_its_head(name: str, root: Path) -> None:
    path = root / f"recipes/pose/{name}.yaml"
    recipe = load_recipe(path, check_files=False).recipe
    module = build_model(recipe.model, family=recipe.family, base=path.parent, seed=0)
    with torch.no_grad():
        specs = output_specs(module(torch.zeros(1, 3, *recipe.model.input.size)))
    check_outputs(specs, family=recipe.family, source=recipe.model.source)
    assert [spec.shape for spec in specs] == [SHAPES[name]]


def published(hidden: int, layers: int, *, simple: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a published file of ViTPose, whose input is 64 x 48."""
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.embeddings.position_embeddings": (1, 13, hidden),
        "backbone.embeddings.patch_embeddings.projection.weight": (hidden, 3, 16, 16),
        "backbone.embeddings.patch_embeddings.projection.bias": (hidden,),
        "backbone.layernorm.weight": (hidden,),
        "backbone.layernorm.bias": (hidden,),
        "head.conv.weight": (17, hidden, 3, 3) if simple else (17, 256, 1, 1),
        "head.conv.bias": (17,),
    }
    square = {f"attention.attention.{name}": (hidden, hidden) for name in ("query", "key", "value")}
    linear = {
        "attention.output.dense": (hidden, hidden),
        "mlp.fc1": (4 * hidden, hidden),
        "mlp.fc2": (hidden, 4 * hidden),
    }
    for layer in range(layers):
        for name, shape in {**square, **linear}.items():
            shapes[f"backbone.encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"backbone.encoder.layer.{layer}.{name}.bias"] = shape[:1]
        for name in ("layernorm_before", "layernorm_after"):
            shapes |= {f"backbone.encoder.layer.{layer}.{name}.{part}": (hidden,) for part in ("weight", "bias")}
    if not simple:
        for number, inputs in ((1, hidden), (2, 256)):
            shapes[f"head.deconv{number}.weight"] = (inputs, 256, 4, 4)
            norm = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"head.batchnorm{number}.{part}": (256,) for part in norm}
            shapes[f"head.batchnorm{number}.num_batches_tracked"] = ()
    return shapes


@pytest.mark.parametrize("simple", [True, False])
def test_a_published_file_fills_every_layer(simple: bool, root: Path, tmp_path: Path) -> None:
    """The names are those of usyd-community's files, written down here: nothing is missing and nothing is left."""
    recipe = load_recipe(root / "recipes/pose/vitpose-base-simple.yaml", check_files=False).recipe
    backbone = {**recipe.model.options["backbone_config"], "image_size": [64, 48], "hidden_size": 24}
    backbone |= {"num_hidden_layers": 2, "num_attention_heads": 2, "out_indices": [2]}
    state = {
        name: torch.rand(shape) if shape else torch.tensor(1) for name, shape in published(24, 2, simple=simple).items()
    }
    save_file(state, tmp_path / "net.safetensors")
    model = replace(
        recipe.model,
        weights=Weights(path="net.safetensors"),
        options={**recipe.model.options, "backbone_config": backbone, "use_simple_decoder": simple},
        input=replace(recipe.model.input, size=(64, 48)),
    )
    module = load_model(model, family=recipe.family, base=tmp_path, cache=tmp_path, seed=0)
    loaded = {name.removeprefix("model."): value for name, value in module.state_dict().items()}
    assert set(loaded) == set(state)
    for name, value in state.items():
        assert torch.equal(loaded[name], value), name
