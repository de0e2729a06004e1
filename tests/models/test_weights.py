"""Reading weights files of every kind, and what does not fit."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgecv.core.recipe import Weights
from edgecv.errors import ArtifactError, ModelError
from edgecv.models.weights import apply_state_dict, load_module_state, read_state_dict, save_module_state

ANY = Weights(path="net.pt")
STATE = OrderedDict(weight=torch.ones(2, 3), bias=torch.zeros(2))


class Opener:
    """Unpickling this would open a file for writing: code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def saved(folder: Path, content: object) -> Path:
    path = folder / "net.pt"
    torch.save(content, path)
    return path


def test_safetensors_with_any_suffix(tmp_path: Path) -> None:
    for name in ("net.safetensors", "net.bin", "0123abcd"):
        save_file(dict(STATE), tmp_path / name)
        assert torch.equal(read_state_dict(tmp_path / name, ANY)["weight"], STATE["weight"])


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_the_entry_with_the_weights_is_found(tmp_path: Path, key: str) -> None:
    path = saved(tmp_path, {key: STATE, "epoch": 7, "optimizer": {"lr": 0.1}})
    assert set(read_state_dict(path, ANY)) == {"weight", "bias"}


def test_a_plain_state_dict_is_taken_as_it_is(tmp_path: Path) -> None:
    assert set(read_state_dict(saved(tmp_path, STATE), ANY)) == {"weight", "bias"}


def test_key_and_prefix(tmp_path: Path) -> None:
    path = saved(tmp_path, {"ema": {"module.weight": STATE["weight"], "other": STATE["bias"]}, "model": STATE})
    assert set(read_state_dict(path, Weights(key="ema", strip_prefix="module."))) == {"weight", "other"}
    with pytest.raises(ModelError, match=r"strip_prefix is 'net.'.*weight"):
        read_state_dict(path, Weights(strip_prefix="net."))
    with pytest.raises(ModelError, match=r"key is 'emma'.*ema, model"):
        read_state_dict(path, Weights(key="emma"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": STATE, "state_dict": STATE}, "several sets of weights .state_dict, model."),
        ({"epoch": 3}, "holds no tensors"),
        ([1, 2], "holds a list"),
    ],
)
def test_files_without_clear_weights(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        read_state_dict(saved(tmp_path, content), ANY)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, save: object) -> None:
    victim = tmp_path / "victim"
    path = tmp_path / "net.pt"
    save({"weight": Opener(victim)}, path)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=r"refused.*code") as caught:
        read_state_dict(path, ANY)
    assert caught.value.exit_code == 6
    assert not victim.exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"refused.*Save model\.state_dict"):
        read_state_dict(saved(tmp_path, nn.Linear(2, 2)), ANY)


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("pt"):
        torch.save(STATE, path)
    else:
        save_file(dict(STATE), path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=name):
            read_state_dict(path, ANY)


def test_matching_weights_are_applied() -> None:
    module = nn.Linear(3, 2)
    apply_state_dict(module, STATE, strict=True)
    assert torch.equal(module.weight, STATE["weight"])


def test_differences_are_listed_with_counts_and_hints() -> None:
    module = nn.Sequential(OrderedDict(head=nn.Linear(3, 2), tail=nn.Linear(2, 1)))
    state = {"head.weight": torch.ones(2, 4), "head.bias": torch.ones(2), "tail.weights": torch.ones(1, 2)}
    with pytest.raises(ModelError) as caught:
        apply_state_dict(module, state, strict=True)
    said = str(caught.value)
    assert "missing in the file (2): tail.weight, tail.bias" in said
    assert "not in the network (1): tail.weights (like tail.weight)" in said
    assert "of another shape (1): head.weight is 2x4 in the file, 2x3 here" in said


def test_long_lists_are_cut() -> None:
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(8)))
    with pytest.raises(ModelError, match=r"missing in the file \(15\): .*, and 5 more"):
        apply_state_dict(module, {"0.bias": torch.ones(1)}, strict=True)


def test_a_prefix_is_recognised() -> None:
    state = {f"module.{name}": value for name, value in STATE.items()}
    with pytest.raises(ModelError, match=r"Set model\.weights\.strip_prefix to 'module\.'"):
        apply_state_dict(nn.Linear(3, 2), state, strict=True)


def test_not_strict_takes_what_fits_but_not_nothing_and_no_other_shapes() -> None:
    module = nn.Linear(3, 2)
    apply_state_dict(module, {"weight": STATE["weight"], "extra": STATE["bias"]}, strict=False)
    assert torch.equal(module.weight, STATE["weight"])
    with pytest.raises(ModelError, match="not in the network"):
        apply_state_dict(module, {"extra": STATE["bias"]}, strict=False)
    with pytest.raises(ModelError, match="of another shape"):
        apply_state_dict(module, {"weight": torch.ones(5, 5)}, strict=False)


def test_module_state_with_shared_tensors_goes_round(tmp_path: Path) -> None:
    first = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    first[1].weight = first[0].weight
    save_module_state(tmp_path / "made" / "state.safetensors", first)
    second = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    second[1].weight = second[0].weight
    load_module_state(tmp_path / "made" / "state.safetensors", second)
    assert all(torch.equal(first.state_dict()[name], value) for name, value in second.state_dict().items())
    with pytest.raises(ArtifactError, match="does not hold the weights of this network"):
        load_module_state(tmp_path / "made" / "state.safetensors", nn.Linear(2, 2))
    with pytest.raises(ArtifactError):
        load_module_state(tmp_path / "absent.safetensors", second)
