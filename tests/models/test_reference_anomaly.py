"""Networks for inspection: a memory of good patches, a student beside its teacher, an auto-encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec, ModelSpec, Weights
from edgecv.errors import ModelError
from edgecv.models.load import load_model
from edgecv.models.memory_bank import MemoryBank, coreset
from edgecv.models.patch_gaussians import PatchGaussians
from edgecv.models.reference_anomaly import autoencoder, encoder, padim, patchcore, student_teacher
from edgecv.models.reference_segmentation import unet

FAMILY = FamilySpec("anomaly", ("defect",))


def pictures(count: int = 4, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_the_distance_is_that_to_the_nearest_patch() -> None:
    bank = MemoryBank(6, size=5, patches=100)
    stages = (torch.rand(2, 4, 8, 8), torch.rand(2, 2, 4, 4))
    bank.fill(lambda: iter([stages]), seed=0)
    points = -bank.weight.flatten(1) / 2
    from edgecv.models.memory_bank import _joined

    patches = ((_joined(stages) - bank.mean) * bank.gain).movedim(1, -1).flatten(0, 2)
    nearest = torch.cdist(patches, points).amin(dim=1).reshape(2, 1, 8, 8)
    wide = torch.nn.functional.interpolate(nearest, scale_factor=2.0, mode="bilinear")
    wanted = torch.nn.functional.conv2d(wide, bank.blur, padding=2)
    assert bank(*stages) == pytest.approx((wanted / (1 + wanted)).numpy(), abs=2e-2)
    assert (bank.gain <= 1.0 / patches.std(dim=0).min() + 1e3).all()


def test_the_coreset_leaves_no_point_far_away() -> None:
    points = torch.cat([torch.randn(500, 40) * 0.01 + 10 * centre for centre in torch.eye(5, 40)])
    chosen = coreset(points, 5, seed=0)
    assert sorted(int(index) // 500 for index in chosen) == [0, 1, 2, 3, 4]
    assert (coreset(points, 5, seed=0) == chosen).all()


def test_a_bank_needs_enough_patches() -> None:
    bank = MemoryBank(3, size=50, patches=100)
    with pytest.raises(ModelError, match="show 16 patches and option bank is 50"):
        bank.fill(lambda: iter([(torch.rand(1, 3, 4, 4),)]), seed=0)
    with pytest.raises(ModelError, match="bank is 0"):
        MemoryBank(3, size=0, patches=10)


def test_what_was_shown_is_near_and_what_was_not_is_far() -> None:
    network = patchcore(levels=2, layers=["0", "1"], bank=64, patches=4000).eval()
    good = 0.1 * pictures(8)
    network.fit_normal(lambda: iter(good.split(4)), seed=0)
    spoiled = good[:1].clone()
    spoiled[:, :, 10:16, 10:16] = 3.0
    with torch.no_grad():
        usual, unusual = network(good[:1]), network(spoiled)
        network.set_scale(2.0)
        assert torch.allclose(network(good[:1]), 2 * usual / (1 + usual), atol=1e-5)
    assert usual.shape == (1, 1, 32, 32)
    assert 1 > float(unusual.amax()) > float(usual.amax()) + 0.1
    assert divmod(int(unusual.argmax()), 32)[0] in range(8, 18)


def test_weights_of_the_feature_extractor_alone_fit(tmp_path: Path) -> None:
    source = unet(width=8, levels=2)
    inner = encoder(width=8, levels=2)
    inner.load_state_dict({name: source.state_dict()[name] for name in inner.state_dict()})
    for name, state in (("unet", source.state_dict()), ("encoder", inner.state_dict())):
        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / f"{name}.safetensors")
        spec = ModelSpec(
            "python:edgecv.models.reference_anomaly:patchcore",
            InputContract(size=(32, 32)),
            Weights(path=f"{name}.safetensors"),
            {"levels": 2, "width": 8, "bank": 4},
        )
        loaded = load_model(spec, family=FAMILY, base=tmp_path, cache=tmp_path, seed=5)
        own = loaded.get_submodule("backbone").state_dict()
        assert all(torch.equal(value, inner.state_dict()[key]) for key, value in own.items())
    save_file({"other": torch.zeros(1)}, tmp_path / "unet.safetensors")
    with pytest.raises(ModelError, match="weights do not fit"):
        load_model(
            ModelSpec(spec.source, spec.input, Weights(path="unet.safetensors"), spec.options),
            family=FAMILY,
            base=tmp_path,
            cache=tmp_path,
            seed=0,
        )


@pytest.mark.parametrize("backbone", ["torchvision:resnet18", "timm:resnet18"])
def test_any_backbone_with_named_stages_will_do(backbone: str) -> None:
    network = patchcore(backbone=backbone, layers=["layer1", "layer2"], bank=16).eval()
    with torch.no_grad():
        network.fit_normal(lambda: iter([pictures(2, 64)]), seed=0)
        assert network(pictures(1, 64)).shape == (1, 1, 32, 32)
    names = network.state_dict()
    assert "backbone.layer1.0.conv1.weight" in names


def test_backbones_that_there_are_not() -> None:
    with pytest.raises(ModelError, match="backbone is 'resnet18'"):
        patchcore(backbone="resnet18", layers=["layer1"])
    with pytest.raises(ModelError, match="has no outputs"):
        patchcore(backbone="torchvision:resnet18", layers=["layer9"])
    with pytest.raises(ModelError, match="has levels 0, 1"):
        patchcore(levels=2, layers=["5"])


def test_a_student_like_its_teacher_finds_nothing_unusual() -> None:
    network = student_teacher(width=4).eval()
    with torch.no_grad():
        assert float(network(pictures()).mean()) > 0.01
        network.get_submodule("student").load_state_dict(network.get_submodule("teacher").state_dict())
        assert float(network(pictures()).abs().max()) < 1e-3
    network.train()
    assert network.get_submodule("student").training
    assert not network.get_submodule("teacher").training
    assert not any(item.requires_grad for item in network.get_submodule("teacher").parameters())


def test_an_auto_encoder_is_wrong_where_it_cannot_repeat() -> None:
    network = autoencoder(width=4, levels=2).train()
    flat = torch.rand(16, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(16, 3, 16, 16) * 2 - 1
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    for _ in range(120):
        value = families.get("anomaly").loss(network(flat), [None] * 16, FAMILY, label_smoothing=0.0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    spoiled = flat[:1].clone()
    spoiled[:, :, ::2, 4:8] += 2.0
    with torch.no_grad():
        found = network.eval()(spoiled)
    assert found.shape == (1, 1, 16, 16)
    assert float(found[..., 5:7].mean()) > 2 * float(found[..., 12:].mean())


def test_what_is_compared_is_not_pruned() -> None:
    network = patchcore(levels=2, layers=["0", "1"], bank=8).eval()
    assert families.get("anomaly").protected(network) == ["backbone.mix.0.conv", "backbone.mix.1.conv"]


def test_the_distance_is_mahalanobis_to_the_gaussian_of_the_place() -> None:
    random = torch.Generator().manual_seed(3)
    memory = PatchGaussians(6, kept=4, grid=(4, 4))
    good = (torch.rand(40, 4, 8, 8, generator=random), torch.rand(40, 2, 4, 4, generator=random))
    memory.fill(lambda: zip(good[0].split(16), good[1].split(16), strict=True), seed=1)
    taken = memory.picked.flatten(1).argmax(dim=1)
    assert len(set(taken.tolist())) == 4
    joined = torch.cat([torch.nn.functional.avg_pool2d(good[0], 2), good[1]], dim=1)[:, taken].flatten(2).double()
    covariances = torch.stack([torch.cov(joined[:, :, place].T) for place in range(16)])
    covariances += 0.1 * covariances.diagonal(dim1=1, dim2=2).mean() * torch.eye(4)
    away = joined[:3] - joined.mean(dim=0)
    squares = torch.einsum("ncp,pcd,ndp->np", away, torch.linalg.inv(covariances), away)
    wide = torch.nn.functional.interpolate(
        squares.sqrt().reshape(3, 1, 4, 4).float(), scale_factor=2.0, mode="bilinear", align_corners=False
    )
    wanted = torch.nn.functional.conv2d(wide, memory.blur, padding=2)
    found = memory(good[0][:3], good[1][:3])
    assert found.shape == (3, 1, 8, 8)
    assert torch.allclose(found, wanted / (1 + wanted), atol=1e-4)


def test_gaussians_know_what_belongs_where() -> None:
    """Every patch of the turned picture is a usual one, but not at its place."""
    network = padim(levels=2, layers=["0", "1"], kept=12, grid=(8, 8)).eval()
    good = 0.1 * pictures(40)
    good[:, :, :16] += 1.0
    network.fit_normal(lambda: iter(good[8:].split(4)), seed=0)
    with torch.no_grad():
        usual, turned = network(good[:8]), network(good[:8].flip(2))
    assert float(turned.mean(dim=0).min()) > float(usual.mean(dim=0).max())


def test_gaussians_that_cannot_be() -> None:
    with pytest.raises(ModelError, match=r"kept is 49 .* the stages have 48 channels, so kept must be 1 to 48"):
        padim(levels=2, layers=["0", "1"], kept=49)
    with pytest.raises(ModelError, match=r"grid is \[8\]; it must be rows and columns"):
        padim(grid=[8])
    with pytest.raises(ModelError, match="a stage of 16 x 16 does not divide into a grid of 5 x 5"):
        padim(grid=[5, 5]).eval()(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ModelError, match="there are 1 good pictures"):
        padim(grid=[8, 8]).eval().fit_normal(lambda: iter([pictures(1, 64)]), seed=0)
