"""A recipe's model from source and weights, checked against its family."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec, ModelSpec, Weights
from edgecv.errors import ModelError
from edgecv.models.load import build_model, load_model
from edgecv.models.outputs import TensorOutputs
from edgecv.models.reference import digits_cnn
from edgecv.models.weights import save_module_state

GRAY = InputContract(size=(32, 32), color="gray", mean=(0.0,), std=(1.0,))
FAMILY = FamilySpec(kind="classification", labels=("a", "b", "c"))
SPEC = ModelSpec(source="python:edgecv.models.reference:digits_cnn", input=GRAY, options={"width": 8})

USER_CODE = """
import torch

class Dictionary(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = torch.nn.Linear(1024, num_classes)

    def forward(self, inputs):
        return {"scores": self.head(inputs.flatten(1))}

class Nothing(torch.nn.Module):
    def forward(self, inputs):
        return "nothing"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "my_nets.py").write_text(USER_CODE)
    yield tmp_path
    sys.modules.pop("my_nets", None)


def load(spec: ModelSpec, folder: Path, *, family: FamilySpec = FAMILY, seed: int = 0) -> torch.nn.Module:
    return load_model(spec, family=family, base=folder, cache=folder / "cache", seed=seed)


def test_random_weights_follow_the_seed_and_leave_the_callers_random_state(tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    one, same, other = (load(SPEC, tmp_path, seed=seed).state_dict()["head.weight"] for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape[0] == 3


def test_background_is_one_more_class(tmp_path: Path) -> None:
    module = load(SPEC, tmp_path, family=dataclasses.replace(FAMILY, background=True))
    assert module(torch.zeros(1, 1, 32, 32)).shape == (1, 4)


def test_weights_are_loaded_and_build_model_leaves_them_out(tmp_path: Path) -> None:
    trained = digits_cnn(num_classes=3, width=8)
    save_module_state(tmp_path / "net.safetensors", trained)
    spec = dataclasses.replace(SPEC, weights=Weights(path="net.safetensors"))
    loaded = load(spec, tmp_path)
    assert not loaded.training
    assert torch.equal(loaded.state_dict()["head.weight"], trained.state_dict()["head.weight"])
    bare = build_model(spec, family=FAMILY, base=tmp_path, seed=0)
    assert not torch.equal(bare.state_dict()["head.weight"], trained.state_dict()["head.weight"])


def test_dictionaries_are_unwrapped_and_their_weights_keep_their_names(folder: Path) -> None:
    spec = dataclasses.replace(SPEC, source="python:my_nets:Dictionary", options={})
    torch.save({"head.weight": torch.ones(3, 1024), "head.bias": torch.zeros(3)}, folder / "net.pt")
    module = load(dataclasses.replace(spec, weights=Weights(path="net.pt")), folder)
    assert isinstance(module, TensorOutputs)
    assert module(torch.ones(2, 1, 32, 32)).tolist() == [[1024.0] * 3] * 2


def test_outputs_must_fit_the_labels(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, options={"num_classes": 7})
    with pytest.raises(ModelError, match=r"digits_cnn does not fit the family classification: .*\(1, 7\)"):
        load(spec, tmp_path)


def test_the_input_must_fit_the_network(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, input=InputContract(size=(32, 32)))
    with pytest.raises(ModelError, match=r"does not take an input of 1x3x32x32 .*model\.input\.color"):
        load(spec, tmp_path)


def test_a_network_without_tensors(folder: Path) -> None:
    with pytest.raises(ModelError, match="gave a str without tensors"):
        load(dataclasses.replace(SPEC, source="python:my_nets:Nothing", options={}), folder)
