"""Every ready recipe of a large network, from the recipe file to all of its artifacts.

Weights are random and the pictures are drawn here, so nothing is downloaded and no accuracy means
anything; what is proven is that each network passes quantisation, export, each compiler and the
verification ladder, and that the artifacts are whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.core.recipe import Recipe
from edgecv.data.imagefile import load_image
from edgecv.measure.ladder import COMPILER_MIN_DB
from edgecv.models.load import build_model
from edgecv.recipe.load import load_recipe
from edgecv.report.schema import ArtifactFigures
from edgecv.report.schema_io import read_report
from edgecv.runtime.prove import prove
from edgecv.vision.image import preprocess
from tests.lines import NOISE_MARGIN_DB

CLASSES = ("tench", "goldfish", "tiger shark", "hammerhead")
EVALUATED, CALIBRATED = 3, 3
"""Pictures a class."""

PROOF_MARGIN_DB = 6.0
NOT_HERE = ("iphone-15", "jetson-orin-nano")


@dataclass(frozen=True)
class Case:
    """How a recipe is made fit for a test: the network's input (None: the recipe's), its options, its ranges."""

    size: int | None = None
    options: str = "{}"
    ranges: str = "mean-minmax"


CASES = {
    "mobilenet-v3-small": Case(),
    "mobilenetv4-conv-small": Case(),
    "shufflenet-v2": Case(),
    "ghostnet-100": Case(),
    "efficientnet-b0": Case(size=128, ranges="auto"),  # SiLU: half of the values lie at its flat end
    "resnet18": Case(size=128),
    "densenet121": Case(size=96),
    "convnext-tiny": Case(size=96),
    "deit-tiny": Case(options="{depth: 4}"),
    "vit-tiny": Case(options="{depth: 4}"),
    "swin-tiny": Case(options="{depths: [2, 2, 2, 2]}"),
}


def picture(draws: np.random.Generator, kind: int) -> np.ndarray:
    """A 160 x 200 RGB picture of waves with blobs on them; ``kind`` sets the colour and the waves' direction."""
    rows, columns = np.mgrid[0:160, 0:200] / 40.0
    angle = kind * 0.8 + draws.normal() * 0.2
    waves = np.sin(columns * np.cos(angle) * 3 + rows * np.sin(angle) * 3 + draws.uniform(0, 6))
    tint = 0.5 + 0.3 * np.sin(kind + np.arange(3) * 2.0)
    values = np.clip(tint + 0.25 * waves[..., None] + draws.normal(0, 0.03, (160, 200, 3)), 0, 1)
    drawn = np.ascontiguousarray((values * 255).astype(np.uint8))
    for _ in range(6):
        centre = (int(draws.integers(0, 200)), int(draws.integers(0, 160)))
        colour = tuple(int(value) for value in draws.integers(20, 235, 3))
        cv2.circle(drawn, centre, int(draws.integers(5, 30)), colour, -1)
    return drawn


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``eval`` and ``calibration``, one folder a class, without a common picture.

    Every class has one picture of each kind: kinds told apart by random weights would look like labels out of order.
    """
    root = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(0)
    for split, count in (("eval", EVALUATED), ("calibration", CALIBRATED)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for kind in range(count):
                assert cv2.imwrite(str(folder / f"{kind}.png"), picture(draws, kind))
    return root


def norm_by_power(part: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
    """Let a batch norm bring each channel of ``inputs`` to a mean square of 1 (a hook: called before it runs)."""
    power = inputs[0].square().mean(dim=(0, 2, 3))
    part.running_mean = torch.zeros_like(power)
    part.running_var = power.clamp(min=float(power.mean()) * 1e-3)


def write_weights(recipe: Recipe, pictures: Path, path: Path) -> Path:
    """Random weights that carry a signal to the end: batch norms know their input, residual branches count.

    Straight from the constructor, values shrink from layer to layer until nothing is left to quantise.
    With the mean taken out, as training does it, rounding noise would grow in every layer instead.
    """
    module = build_model(recipe.model, family=recipe.family, base=pictures, seed=0)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if "layer_scale" in name:
                value.uniform_(0.2, 0.6, generator=draws)
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        hooks = [part.register_forward_pre_hook(norm_by_power) for part in norms]
        for part in norms:
            part.weight.uniform_(0.6, 1.4, generator=draws)
            part.bias.normal_(0, 0.2, generator=draws)
        contract = recipe.model.input
        seen = [load_image(file) for file in sorted(pictures.glob("calibration/*/*.png"))]
        module(torch.from_numpy(np.stack([preprocess(image[..., ::-1].copy(), contract) for image in seen])))
        for hook in hooks:
            hook.remove()
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
    return path


def settings(case: Case, pictures: Path) -> dict[str, str]:
    """Values that make the recipe small and independent of downloads, by their ``--set`` paths."""
    source = {"kind": "imagefolder", "path": str(pictures / "calibration")}
    values = {
        "model.weights": "null",
        "model.options": case.options,
        "data.eval": json.dumps({"kind": "imagefolder", "path": str(pictures / "eval")}),
        "data.calibration": json.dumps({"source": source, "samples": CALIBRATED * len(CLASSES)}),
        "budgets": "{}",
        "measure.protocol": "smoke",
        "steps.0.quantize.ranges": case.ranges,
    }
    return values if case.size is None else {**values, "model.input.size": f"[{case.size}, {case.size}]"}


def optimize(name: str, case: Case, *, root: Path, pictures: Path, folder: Path) -> int:
    """`edgecv optimize` of the recipe ``name`` with weights that are made here, to ``folder / "out"``."""
    path = root / "recipes" / "classification" / f"{name}.yaml"
    values = settings(case, pictures)
    recipe = load_recipe(path, sets=[f"{key}={value}" for key, value in values.items()]).recipe
    values["model.weights"] = str(write_weights(recipe, pictures, folder / "weights.safetensors"))
    sets = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    return cli.main(["optimize", str(path), "--out", str(folder / "out"), *sets])


def show(artifact: ArtifactFigures) -> str:
    """The ladder of an artifact in words, for the message of a failing test."""
    rungs = artifact.ladder.rungs if artifact.ladder else ()
    lines = [f"  {rung.outcome}: {rung.name}: {rung.sqnr_db} dB, blame {rung.blame!r}" for rung in rungs]
    return "\n".join([f"{artifact.target}: {artifact.error or 'no error'}", *lines])


def check(artifact: ArtifactFigures, folder: Path) -> None:
    """One target's artifact: made, small enough, and every rung that can be climbed here holds."""
    assert artifact.error == ""
    manifest = read_manifest(folder)
    assert manifest.status == ("deferred" if artifact.backend == "tensorrt" else "ready")
    assert artifact.size_ratio is not None
    assert artifact.size_ratio < (0.5 if manifest.precision == "int8" else 0.55), show(artifact)
    assert artifact.ladder is not None
    rungs = {rung.name: rung for rung in artifact.ladder.rungs}
    compiled = rungs.pop(f"compiled {artifact.backend}")
    assert all(rung.outcome != "fail" for rung in rungs.values()), show(artifact)
    if artifact.target in NOT_HERE:
        assert compiled.outcome == "not-checked"
        return
    quantised = rungs["Q/DQ torch"].sqnr_db
    assert compiled.sqnr_db is not None
    assert quantised is not None
    assert compiled.sqnr_db >= min(COMPILER_MIN_DB, quantised + NOISE_MARGIN_DB), show(artifact)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_recipe(
    name: str,
    root: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("EDGECV_CACHE", str(tmp_path / "cache"))
    code = optimize(name, CASES[name], root=root, pictures=pictures, folder=tmp_path)
    shown = capsys.readouterr()
    made = [item for item in read_report(out / "report.json").artifacts if item.role == "optimized"]
    assert {item.backend for item in made} == {"onnxruntime", "openvino", "litert", "coreml", "tensorrt"}
    for item in made:
        check(item, out / item.target)
    broken = any(item.ladder is not None and item.ladder.first_broken for item in made)
    assert code == (3 if broken else 0), shown.out + shown.err
    # The device's own proof on its few pictures says the same. Of answers it sees too few to tell: random weights
    # put the classes so near to each other that one rounding step changes the order.
    for item in made:
        if item.ladder is not None and item.ladder.first_broken is None and item.target not in NOT_HERE:
            climbed = [rung.sqnr_db for rung in item.ladder.rungs if rung.name == f"compiled {item.backend}"]
            proof = prove(out / item.target)
            assert proof.ladder is not None
            proven = next(rung.sqnr_db for rung in proof.ladder.rungs if rung.name == "this machine")
            assert proven is not None
            assert climbed[0] is not None
            assert proven >= climbed[0] - PROOF_MARGIN_DB, show(item)
