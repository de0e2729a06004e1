"""Detectors of other architectures for the table of families: SSD, RetinaNet, FCOS, RT-DETR and DETR in small.

Their published weights are too large to keep here, so each is trained on made-up scenes, some minutes on one core: the
first three by edgecv's losses, RT-DETR by that of transformers, which also teaches its choice of queries and the layers
between, DETR as `train_detr.py` says. On 200 test scenes they reached an AP of 0.698, 0.615, 0.703, 0.378 and 0.455
(AP50 0.966, 0.915, 0.954, 0.622, 0.755).
``python tools/bench/families_detectors.py --weights DIR`` trains those that DIR lacks and tells how good they are.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from train_detr import look, train_detr
from train_scenes import CONTRACT, SEED, Task, judged, train

from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec, FamilySpec, ModelSpec
from edgecv.core.results import DetectionTruth
from edgecv.data.readers import open_reader
from edgecv.models import reference_detectors
from edgecv.models.load import build_model
from edgecv.models.transformer_detectors import DetrGraph, detector_graph, thaw
from edgecv.models.weights import save_module_state
from edgecv.optimize.objectives import Objective
from edgecv.vision.scenes import LABELS

SIZE = (160, 192)
BACKBONE = {"embedding_size": 16, "hidden_sizes": [16, 24, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"}
RT_DETR: dict[str, Any] = {
    "d_model": 64,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "dropout": 0.0,
    "backbone_config": {"model_type": "rt_detr_resnet", **BACKBONE, "out_features": ["stage2", "stage3", "stage4"]},
    "freeze_backbone_batch_norms": False,
    "encoder_in_channels": [24, 48, 64],
    "encoder_hidden_dim": 64,
    "decoder_in_channels": [64, 64, 64],
    "hidden_expansion": 0.5,
    "decoder_layers": 2,
    "num_queries": 30,
    "num_denoising": 20,
}
DETR: dict[str, Any] = {
    "d_model": 96,
    "encoder_ffn_dim": 192,
    "decoder_ffn_dim": 192,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "dropout": 0.0,
    "use_timm_backbone": False,
    "backbone_config": {"model_type": "rt_detr_resnet", **BACKBONE, "out_features": ["stage3"]},
    "encoder_layers": 2,
    "decoder_layers": 3,
    "num_queries": 20,
}
PARTS = "python:edgecv.models.reference_detectors"


@dataclass(frozen=True)
class Detector:
    """A network, what its head is told, and how it is trained."""

    source: str
    head: str
    options: Mapping[str, Any] = field(default_factory=dict)
    head_options: Mapping[str, Any] = field(default_factory=dict)
    iou_threshold: float = 0.55
    scenes: int = 700
    epochs: int = 14
    lr: float = 4e-3

    @property
    def family(self) -> FamilySpec:
        return FamilySpec(
            "detection",
            LABELS,
            head=self.head,
            background=self.head != "detr",
            score_threshold=0.01,
            iou_threshold=self.iou_threshold,
            max_detections=100,
            options=dict(self.head_options),
        )

    @property
    def model(self) -> ModelSpec:
        return ModelSpec(self.source, CONTRACT_HERE, options=dict(self.options))

    @property
    def task(self) -> Task:
        network = torch.nn.Module  # the caller builds it
        schedule: dict[str, Any] = {"scenes": self.scenes, "epochs": self.epochs, "lr": self.lr, "ema": 0.998}
        return Task(self.family, "scenes-boxes", network, "crop-flip", contract=CONTRACT_HERE, tests=200, **schedule)


CONTRACT_HERE: InputContract = replace(CONTRACT, size=SIZE)
DETECTORS = {
    "scenes-ssd": Detector(f"{PARTS}:small_ssd", "ssd", head_options=reference_detectors.SSD_OPTIONS, epochs=25),
    "scenes-retinanet": Detector(
        f"{PARTS}:small_retinanet", "retinanet", head_options=reference_detectors.RETINANET_OPTIONS, lr=2e-3
    ),
    "scenes-fcos": Detector(f"{PARTS}:small_fcos", "fcos", head_options=reference_detectors.FCOS_OPTIONS),
    "scenes-rt-detr": Detector("transformers:RTDetrForObjectDetection", "detr", RT_DETR, lr=1e-3),
    "scenes-detr": Detector("transformers:DetrForObjectDetection", "detr", DETR, scenes=8000, epochs=20),
}


def detector_recipe(name: str, *, weights: Path, folder: Path) -> Path:
    """The file of a recipe of `DETECTORS` in ``folder``; ``weights`` holds what it was trained to, or is given it."""
    detector = DETECTORS[name]
    stored = weights / f"{name}.safetensors"
    if not stored.exists():
        _train(name, stored)
    family = detector.family
    steps = [{"quantize": {"method": "ptq", "scheme": "portable"}}]
    scenes = {"kind": "scenes-boxes"}
    recipe = {
        "recipe": 1,
        "name": name,
        "model": {
            "source": detector.source,
            "weights": str(stored.resolve()),
            "input": {"size": [*SIZE], "mean": [0.5] * 3, "std": [0.25] * 3, "resize": "stretch"},
            "options": dict(detector.options),
        },
        "family": {
            "kind": "detection",
            "head": detector.head,
            "labels": [*LABELS],
            "background": family.background,
            "score_threshold": family.score_threshold,
            "iou_threshold": detector.iou_threshold,
            "max_detections": family.max_detections,
            "options": dict(detector.head_options),
        },
        "data": {
            "train": {**scenes, "split": "train", "limit": 500},
            "eval": {**scenes, "split": "test", "limit": 200},
            "calibration": {
                "source": {**scenes, "split": "train", "limit": 64},
                "samples": 48,
                "select": "random",
            },
        },
        "steps": steps,
        "targets": ["host-onnxruntime"],
        "budgets": {"accuracy": {"metric": "ap", "max_drop": 0.01}},
        "measure": {"protocol": "smoke", "fps": 30},
    }
    path = folder / f"{name}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def _train(name: str, stored: Path) -> None:
    """Train on scenes, write the weights as the graph names them, and tell what they reach."""
    detector, started = DETECTORS[name], time.monotonic()
    task = detector.task
    if name == "scenes-detr":
        graph = _trained_detr(detector, stored.parent)
    elif detector.head == "detr":
        network = _transformer(detector)
        train(task, network, objective=_own_objective(task))
        graph = detector_graph(network, SIZE)
    else:
        graph = build_model(detector.model, family=detector.family, base=Path(), seed=SEED)
        train(task, graph)
    graph.eval()
    save_module_state(stored, graph)
    count = sum(item.numel() for item in graph.parameters())
    print(f"{stored.name}: {count} parameters, {time.monotonic() - started:.0f} s, {judged(task, graph)}", flush=True)


def _trained_detr(detector: Detector, weights: Path) -> Any:
    """A DETR on the backbone of the RT-DETR in ``weights``, which is trained first where it is not there."""
    detector_recipe("scenes-rt-detr", weights=weights, folder=weights)
    network = _transformer(detector)
    graph = detector_graph(network, SIZE).eval()
    assert isinstance(graph, DetrGraph)
    given = load_file(weights / "scenes-rt-detr.safetensors")
    own = {key for key in graph.state_dict() if key.startswith("model.backbone")}
    graph.load_state_dict({key: given[key] for key in own}, strict=False)
    spec = DataSpec(kind="scenes-boxes", split="train", limit=detector.scenes)
    torch.set_num_threads(1)
    seen = look(graph.features, open_reader(spec, base=Path(), labels=LABELS), CONTRACT_HERE)
    train_detr(graph, seen, detector.family, SIZE, epochs=detector.epochs)
    return graph


def _transformer(detector: Detector) -> Any:
    """The network of transformers as it is trained, with ordinary batch norms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that transformers imports
        import transformers

        architecture = getattr(transformers, detector.source.partition(":")[2])
        torch.manual_seed(SEED)
        network = architecture(architecture.config_class(**{**detector.options, "num_labels": len(LABELS)}))
    thaw(network)
    return network


def _own_objective(task: Task) -> Objective:
    """The loss of a network of transformers: of all its decoder's layers and of the choice of its queries."""
    from torchvision.ops import box_convert

    from edgecv.families.detection_targets import objects

    sides = torch.tensor([task.contract.size[1], task.contract.size[0]] * 2, dtype=torch.float32)

    def loss(module: torch.nn.Module, inputs: torch.Tensor, truths: Sequence[DetectionTruth]) -> torch.Tensor:
        labels = []
        for truth in truths:
            boxes, classes = objects(truth, inputs)
            labels.append({"class_labels": classes, "boxes": box_convert(boxes, "xyxy", "cxcywh") / sides})
        found: torch.Tensor = module(pixel_values=inputs, labels=labels).loss
        return found

    def none(outputs: Any, truths: Any) -> torch.Tensor:
        raise AssertionError("a network of transformers has its own loss")

    return Objective(none, own=loss)


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="where the weights are kept")
    parser.add_argument("--only", nargs="+", choices=sorted(DETECTORS), default=list(DETECTORS))
    options = parser.parse_args()
    for name in options.only:
        print(detector_recipe(name, weights=options.weights, folder=options.weights), flush=True)


if __name__ == "__main__":
    main()
