"""Pruning whole networks: targets, limits, replay, and real architectures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec, Prune
from edgecv.errors import ModelError
from edgecv.models.reference import cifar_resnet20, digits_cnn
from edgecv.optimize import prune_graph
from edgecv.optimize.finetune import TrainSet
from edgecv.optimize.importance import taylor_scores
from edgecv.optimize.prune import (
    PruneResult,
    count_macs,
    example_input,
    load_module_state,
    prune,
    replay,
    save_module_state,
    taylor_batches,
)
from edgecv.optimize.prune_plan import Limits, first_enough, planned_counts, planned_cuts
from edgecv.optimize.prune_rounds import without

from .tiny_reader import CONTRACT, FAMILY, TinyReader, tiny_net

GRAY = InputContract(size=(32, 32), color="gray", mean=(0.0,), std=(1.0,))
COLOR = InputContract(size=(32, 32))
TEN = FamilySpec(kind="classification", labels=tuple("abcdefghij"))


def digits(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return digits_cnn().eval()


def run(module: nn.Module, step: Prune, contract: InputContract = GRAY, **options: Any) -> PruneResult:
    return prune(module, step=step, contract=contract, family=TEN, **options)


def replayed_gives_the_same(result: PruneResult, fresh: nn.Module, contract: InputContract, folder: Path) -> None:
    """Through JSON and safetensors, as the build's steps hand it on."""
    history = json.loads(json.dumps(result.history))
    save_module_state(folder / "state.safetensors", result.module)
    again = replay(fresh, example_input(contract), history)
    load_module_state(folder / "state.safetensors", again)
    inputs = torch.randn(2, contract.channels, *contract.size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again(inputs), result.module(inputs))


@pytest.mark.parametrize("importance", ["magnitude", "bn-scale", "lamp", "fpgm", "random"])
def test_speedup_is_reached_and_not_much_more(importance: Any, tmp_path: Path) -> None:
    module = digits()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result = run(module, Prune(importance=importance, speedup=2.0, round_to=4))
    assert 2.0 <= result.speedup <= 2.2
    assert result.macs_after == count_macs(result.module, example_input(GRAY))
    assert result.params_after < result.params_before == 145_578
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    replayed_gives_the_same(result, digits(seed=9), GRAY, tmp_path)


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_widths_are_multiples_and_no_layer_loses_too_much(scope: Any) -> None:
    result = run(digits(), Prune(speedup=3.0, scope=scope, max_layer_ratio=0.6, round_to=8))
    assert 3.0 <= result.speedup <= 3.5
    assert result.layers["head"] == (10, 10)
    for name, (before, after) in result.layers.items():
        if name != "head":
            assert after % 8 == 0, name
            assert after >= before * 0.4, name
    assert any(after < before for before, after in result.layers.values())


def test_ratio_cuts_that_share_of_each_layer() -> None:
    result = run(digits(), Prune(ratio=0.25, scope="uniform", round_to=8))
    assert result.layers["spread.conv"] == (192, 144)
    assert result.layers["stem.conv"] == (32, 24)


def test_several_rounds_reach_the_same_target(tmp_path: Path) -> None:
    result = run(digits(), Prune(speedup=2.5, steps=3, round_to=4))
    assert 2.5 <= result.speedup <= 2.8
    assert {entry["round"] for entry in result.history} == {0, 1, 2}
    replayed_gives_the_same(result, digits(seed=9), GRAY, tmp_path)
    ratio = run(digits(), Prune(ratio=0.5, steps=2, scope="uniform", round_to=8, max_layer_ratio=0.5))
    assert ratio.layers["spread.conv"] == (192, 96)


def test_two_prune_steps_after_one_another_replay_together(tmp_path: Path) -> None:
    first = run(digits(), Prune(speedup=1.5))
    second = run(first.module, Prune(speedup=1.5))
    both = dataclasses.replace(second, history=first.history + second.history)
    replayed_gives_the_same(both, digits(seed=9), GRAY, tmp_path)


def test_protected_layers_keep_their_width() -> None:
    result = run(digits(), Prune(speedup=1.5, protect=("separable*", "mix")))
    for name in ("separable.pointwise.conv", "mix.conv", "down.conv"):
        before, after = result.layers[name]
        assert before == after, name
    assert result.layers["residual.first.conv"][1] < 64
    with pytest.raises(ModelError, match=r"protect: 'residul\*' fits no layer"):
        run(digits(), Prune(speedup=1.5, protect=("residul*",)))


def test_dead_channels_go_first_and_outputs_stay() -> None:
    module = digits()
    with torch.no_grad():
        dead = torch.arange(0, 128, 2)
        for values in (module.mix.conv.weight, module.mix.norm.weight, module.mix.norm.bias):
            values[dead] = 0.0
        module.spread.conv.weight[:, dead] = 0.0
    others = ("stem*", "down*", "residual*", "separable*", "spread*")
    result = run(module, Prune(ratio=0.5, scope="uniform", protect=others))
    assert [(entry["layer"], entry["indices"]) for entry in result.history] == [("mix.conv", dead.tolist())]
    inputs = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(result.module(inputs), module(inputs), atol=1e-5)


def test_taylor_importance_keeps_what_the_loss_needs() -> None:
    data = TrainSet(TinyReader(60), CONTRACT, FAMILY)
    module = tiny_net()
    with torch.no_grad():
        # Large filters that nothing reads: magnitude would keep them, their gradient is 0.
        module[0].weight[:4] *= 50.0
        module[6].weight[:, :64] = 0.0
    step = Prune(importance="taylor", ratio=0.5, round_to=1, scope="uniform")
    batches = taylor_batches(data, samples=40, seed=0)
    result = prune(module, step=step, contract=CONTRACT, family=FAMILY, batches=batches)
    assert [entry["indices"] for entry in result.history] == [[0, 1, 2, 3]]
    assert all(parameter.grad is None for parameter in result.module.parameters())
    with pytest.raises(ModelError, match="taylor importance needs training samples"):
        prune(module, step=step, contract=CONTRACT, family=FAMILY)


def test_taylor_importance_is_weighed_against_multiply_accumulates() -> None:
    """The wide layer's channels matter least one by one, but they save next to nothing."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 16, 3, padding=1), nn.Tanh(), nn.AvgPool2d(4)),
        *(nn.Conv2d(16, 64, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3)),
    ).eval()
    batches = taylor_batches(TrainSet(TinyReader(60), CONTRACT, FAMILY), samples=40, seed=0)
    step = Prune(importance="taylor", round_to=1, speedup=1.5)
    result = prune(module, step=step, contract=CONTRACT, family=FAMILY, batches=batches)
    example, regions = example_input(CONTRACT), (prune_graph.Region("", example_input(CONTRACT)),)
    groups = list(prune_graph.groups_of(module, regions[0], protected=frozenset({"9"})))
    scored = taylor_scores(module, groups, batches=batches, family=FAMILY)

    def faster(counts: tuple[int, ...]) -> float:
        cuts = planned_cuts(scored, counts, round_index=0)
        return result.macs_before / count_macs(without(module, regions, cuts), example)

    limits = Limits(round_to=1, max_layer_ratio=step.max_layer_ratio, originally={})
    at_one_threshold = first_enough(
        lambda number: planned_counts(scored, share=number / 90, scope="global", limits=limits),
        90,
        enough=lambda counts: faster(counts) >= 1.5,
    )
    assert at_one_threshold is not None
    by_layer = {item.key[1]: item for item in scored}
    lost = sum(float(by_layer[entry["layer"]].scores[entry["indices"]].sum()) for entry in result.history)
    other = sum(
        float(item.scores[list(item.order[:n])].sum()) for item, n in zip(scored, at_one_threshold, strict=True)
    )
    assert result.speedup >= 1.5
    assert lost < 0.9 * other


def test_taylor_batches_take_so_many_samples() -> None:
    reader = TinyReader(60)
    batches = taylor_batches(TrainSet(reader, CONTRACT, FAMILY), samples=20, seed=0, batch_size=8)
    assert [len(truths) for _, truths in batches()] == [8, 8, 4]
    assert len(set(reader.reads)) == 20


def test_random_importance_follows_the_seed() -> None:
    step = Prune(importance="random", speedup=2.0)
    assert run(digits(), step, seed=1).history == run(digits(), step, seed=1).history
    assert run(digits(), step, seed=1).history != run(digits(), step, seed=2).history


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Prune(speedup=60.0), "speedup 60.0 cannot be reached: at most"),
        (Prune(ratio=0.01, round_to=64), "ratio 0.01 cuts nothing"),
        (Prune(), "exactly one of speedup"),
        (Prune(speedup=2.0, ratio=0.5), "exactly one of speedup"),
    ],
)
def test_what_cannot_be_done_is_explained(step: Prune, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        run(digits(), step)


def test_networks_without_anything_to_cut() -> None:
    only_head = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    with pytest.raises(ModelError, match="no layer of Sequential can be pruned"):
        run(only_head, Prune(speedup=2.0))
    no_norm = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    with pytest.raises(ModelError, match="bn-scale needs batch norm"):
        run(no_norm, Prune(importance="bn-scale", speedup=1.5))


def test_a_history_of_another_network_is_refused() -> None:
    history = run(digits(), Prune(speedup=2.0)).history
    with pytest.raises(ModelError, match="does not fit this network"):
        replay(cifar_resnet20(), example_input(COLOR), history)
    with pytest.raises(ModelError, match="does not fit this network"):
        replay(digits(), example_input(GRAY), [{"round": 0}])


def test_the_pruned_network_can_be_exported_and_trained() -> None:
    module = run(digits(), Prune(speedup=2.0)).module
    inputs = torch.randn(1, 1, 32, 32)
    exported = torch.export.export(module, (inputs,)).module()
    assert torch.allclose(exported(inputs), module(inputs), atol=1e-5)
    module.train()(torch.randn(4, 1, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def torchvision(name: str) -> Any:
    from torchvision.models import get_model

    return lambda: get_model(name, weights=None, num_classes=10)


def timm(name: str, **options: Any) -> Any:
    from timm import create_model

    return lambda: create_model(name, pretrained=False, num_classes=10, **options)


def prune_real(make: Any, *, size: int, speedup: float, folder: Path) -> PruneResult:
    torch.manual_seed(0)
    contract = InputContract(size=(size, size))
    result = prune(make(), step=Prune(speedup=speedup), contract=contract, family=TEN)
    assert speedup <= result.speedup <= speedup * 1.1
    with torch.no_grad():
        assert result.module(torch.zeros(2, 3, size, size)).shape == (2, 10)
    replayed_gives_the_same(result, make(), contract, folder)
    return result


@pytest.mark.build
@pytest.mark.parametrize(
    ("make", "speedup"),
    [
        (torchvision("resnet18"), 2.0),
        (torchvision("mobilenet_v3_small"), 2.0),
        (torchvision("shufflenet_v2_x0_5"), 1.3),
        (torchvision("efficientnet_b0"), 2.0),
        (timm("mobilenetv4_conv_small"), 2.0),
        (timm("deit_tiny_patch16_224", img_size=64), 2.0),
    ],
    ids=["resnet18", "mobilenet_v3_small", "shufflenet_v2", "efficientnet_b0", "mobilenetv4", "deit_tiny"],
)
def test_real_networks(make: Any, speedup: float, tmp_path: Path) -> None:
    prune_real(make, size=64, speedup=speedup, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        torchvision("densenet121"),
        torchvision("resnext50_32x4d"),
        timm("convnext_tiny"),
        timm("swin_tiny_patch4_window7_224", img_size=64, window_size=4),
        timm("ghostnet_100"),
    ],
    ids=["densenet121", "resnext50", "convnext_tiny", "swin_tiny", "ghostnet_100"],
)
def test_large_networks(make: Any, tmp_path: Path) -> None:
    prune_real(make, size=64, speedup=2.0, folder=tmp_path)


@pytest.mark.build
def test_resnet20_is_cut_inside_its_blocks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = run(cifar_resnet20(), Prune(speedup=1.8), COLOR)
    assert result.speedup >= 1.8
    assert all(before == after for name, (before, after) in result.layers.items() if not name.endswith("conv1"))
    assert result.layers["conv1"] == (16, 16)
    replayed_gives_the_same(result, cifar_resnet20(), COLOR, tmp_path)
