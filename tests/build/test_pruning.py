"""What decides in a prune step, before anything is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.build.pruning import goal_title, resolved, timing_params
from edgecv.core.plain import from_plain
from edgecv.core.recipe import Prune
from edgecv.core.target import Target
from edgecv.errors import ModelError
from edgecv.measure.host import machine_facts
from edgecv.recipe.targets import load_target

HERE = Path(__file__).parent


def target(name: str) -> Target:
    return load_target(name, base=HERE)


def test_the_first_target_that_is_this_machine_decides() -> None:
    targets = [target("jetson-orin-nano"), target("host-openvino"), target("host-onnxruntime")]
    step, note = resolved(Prune(speedup=1.5, by="latency", importance="taylor"), targets)
    assert (step.target, step.round_to, note) == ("host-openvino", 8, "")
    assert goal_title(step) == "prune 1.5x faster on host-openvino by taylor"
    named, _ = resolved(Prune(latency_ms=4.0, target="host-onnxruntime", round_to=16), targets)
    assert (named.target, named.round_to) == ("host-onnxruntime", 16)
    assert goal_title(named) == "prune to 4 ms on host-onnxruntime by magnitude"
    params = timing_params(named, targets, machine_facts({}))
    assert from_plain(Target, params["timed"]) == targets[2]
    assert timing_params(Prune(speedup=2.0), targets, machine_facts({})) == {}


def test_another_machine_falls_back_to_macs_and_says_so() -> None:
    targets = [target("jetson-orin-nano")]
    step, note = resolved(Prune(speedup=1.5, by="latency"), targets)
    assert not step.by_latency
    assert goal_title(step) == "prune 1.5x fewer MACs by magnitude"
    assert note.startswith("by MACs, not by latency: jetson-orin-nano is another machine (NVIDIA Orin")
    with pytest.raises(ModelError, match=r"latency_ms 4\.0 cannot be held here: jetson-orin-nano is another machine"):
        resolved(Prune(latency_ms=4.0), targets)
    with pytest.raises(ModelError, match="'host-litert' is not in the recipe; allowed: jetson-orin-nano"):
        resolved(Prune(speedup=1.5, by="latency", target="host-litert"), targets)


def test_titles_of_the_other_kinds() -> None:
    assert goal_title(Prune(pattern="2:4")) == "prune 2:4 sparse"
    assert goal_title(Prune(pattern="unstructured", ratio=0.6)) == "prune 0.6 unstructured sparse"
    assert goal_title(Prune(ratio=0.25, importance="lamp")) == "prune 0.25 of channels by lamp"


def test_what_is_left_open_follows_from_the_data() -> None:
    targets = [target("host-openvino")]
    with_pictures, _ = resolved(Prune(speedup=2.0), targets, trains=True)
    assert (with_pictures.importance, with_pictures.repair, with_pictures.needs_training) == ("output", True, True)
    without, _ = resolved(Prune(speedup=2.0), targets)
    assert (without.importance, without.repair, without.needs_training) == ("magnitude", False, False)
    asked = Prune(speedup=2.0, importance="lamp", repair=False)
    named, _ = resolved(asked, targets, trains=True)
    assert (named.importance, named.repair) == ("lamp", False)


def test_zeros_that_bring_no_speed_are_told_in_the_plan() -> None:
    targets = [target("jetson-orin-nano"), target("host-openvino"), target("raspberry-pi-5")]
    _, note = resolved(Prune(pattern="2:4"), targets)
    assert note == "no faster on host-openvino, raspberry-pi-5"
    assert resolved(Prune(pattern="2:4"), targets[:1])[1] == ""
    _, none = resolved(Prune(pattern="unstructured", ratio=0.5), targets[:1])
    assert none == "no target gets faster by it: jetson-orin-nano"
