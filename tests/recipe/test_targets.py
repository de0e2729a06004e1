from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.errors import RecipeError
from edgecv.recipe.targets import list_targets, load_target

NAMES = [
    "android-arm64",
    "host-litert",
    "host-onnxruntime",
    "host-openvino",
    "intel-n100",
    "iphone-15",
    "jetson-agx-orin",
    "jetson-nano",
    "jetson-orin-nano",
    "jetson-thor",
    "jetson-xavier-nx",
    "raspberry-pi-4",
    "raspberry-pi-5",
]
OPTIONS = {
    "litert": {"delegate"},
    "openvino": {"device", "hint"},
    "tensorrt": {"workspace_mb", "timing_cache", "dla"},
    "coreml": {"minimum_deployment_target", "compute_units"},
    "onnxruntime": {"providers", "session_options"},
}


def test_the_boards_that_come_with_edgecv() -> None:
    assert list(list_targets()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_board_is_sound(name: str) -> None:
    target = load_target(name, base=Path("/"))
    assert target.name == name
    assert set(target.engine_options) == OPTIONS[target.backend]
    assert "fp32" in target.precisions
    assert target.sources
    assert all("https://" in source for source in target.sources)
    assert len({mode.name for mode in target.power_modes}) == len(target.power_modes)
    assert all(zone.throttle_c is None or 40 < zone.throttle_c < 110 for zone in target.thermal_zones)
    assert name.startswith("host-") == (target.arch == "host")


@pytest.mark.parametrize("name", ["raspberry-pi5", "rasberry-pi-5"])
def test_an_unknown_board_brings_a_hint_and_the_list(name: str) -> None:
    with pytest.raises(RecipeError, match="did you mean 'raspberry-pi-5'") as caught:
        load_target(name, base=Path("/"))
    assert all(known in str(caught.value) for known in NAMES)


@pytest.mark.parametrize("name", ["../x", "a\\b", "", "."])
def test_names_are_not_paths(name: str) -> None:
    with pytest.raises(RecipeError, match="is not a target name"):
        load_target(name, base=Path("/"))


def test_a_file_must_be_called_as_its_target(tmp_path: Path) -> None:
    text = list_targets()["raspberry-pi-5"].read_text()
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match="must be the file's name, 'mine'"):
        load_target("mine.yaml", base=tmp_path)
    (tmp_path / "raspberry-pi-5.yaml").write_text(text)
    assert load_target(str(tmp_path / "raspberry-pi-5.yaml"), base=Path("/")).threads == 4
