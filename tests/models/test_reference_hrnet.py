from __future__ import annotations

import re
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from edgecv.families import pose  # noqa: E402
from edgecv.models.reference_hrnet import hrnet_pose  # noqa: E402
from edgecv.optimize.prune_graph import Cut, find_regions, groups_of, is_sound  # noqa: E402

SMALL: dict[str, Any] = {"name": "hrnet_w18_small", "width": 4, "stem": 8, "blocks": 1}


def test_the_maps_have_a_quarter_of_the_size() -> None:
    module = hrnet_pose(keypoints=5, **SMALL).eval()
    assert module(torch.zeros(2, 3, 64, 96)).shape == (2, 5, 16, 24)
    assert pose.protected(module) == ["final_layer"]


def test_it_is_the_published_network() -> None:
    """HRNet-W32 for poses: 28.5 million parameters in the paper, and the names of the layers in the authors' files."""
    module = hrnet_pose()
    assert sum(item.numel() for item in module.parameters()) == pytest.approx(28.5e6, rel=5e-3)
    names = set(module.state_dict())
    wanted = {
        "conv1.weight", "bn2.running_var", "layer1.0.downsample.0.weight", "transition1.0.0.weight",
        "transition1.1.0.0.weight", "stage2.0.branches.1.3.conv2.weight", "stage3.3.fuse_layers.2.0.1.0.weight",
        "transition3.3.0.0.weight", "stage4.2.fuse_layers.0.3.1.weight", "final_layer.weight", "final_layer.bias",
    }  # fmt: skip
    assert wanted <= names
    last = {match.group(1) for name in names if (match := re.match(r"stage4\.2\.fuse_layers\.(\d)", name))}
    assert last == {"0"}, "the last exchange makes the finest map only"


def test_all_branches_reach_the_maps() -> None:
    torch.manual_seed(0)
    module: Any = hrnet_pose(keypoints=2, **SMALL).eval()
    with torch.no_grad():
        before = module(torch.ones(1, 3, 64, 64))
        for branch in range(4):
            module.stage4[-1].branches[branch][0].conv1.weight.mul_(3)
            after = module(torch.ones(1, 3, 64, 64))
            assert not torch.equal(before, after), f"branch {branch} does not count"
            before = after


def test_channels_that_exchange_units_add_up_are_cut_together() -> None:
    """Each map of an exchange is a sum over all branches; a cut on trial must leave what the network computes."""
    torch.manual_seed(0)
    module = hrnet_pose(keypoints=2, **SMALL).eval()
    example = torch.zeros(1, 3, 64, 64)
    regions = find_regions(module, example)
    groups = [group for group, _ in groups_of(module, regions[0], protected=frozenset({"final_layer"}))]
    assert [region.name for region in regions] == [""], "it is traced as a whole"
    assert "final_layer" not in {group.layer for group in groups}
    cuts = [Cut(0, group.region, group.layer, (0,)) for group in groups if group.layer.startswith("stage")]
    assert len(cuts) >= 10
    assert is_sound(module, regions, cuts, example=example)


@pytest.mark.parametrize(
    ("options", "said"), [({"name": "hrnet_w5"}, "hrnet_w18_small, "), ({"width": 0}, "width is 0; at least 1")]
)
def test_what_timm_does_not_have_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hrnet_pose(**options)
