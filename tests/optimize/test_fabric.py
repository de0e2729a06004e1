"""Fabric starts without a word on the terminal."""

from __future__ import annotations

import pytest

from edgecv.optimize.fabric import Devices, launch_fabric


@pytest.mark.build
def test_mixed_precision_starts_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    fabric = launch_fabric(Devices("cpu"), precision="bf16-mixed")
    assert fabric.world_size == 1
    assert capfd.readouterr() == ("", "")
