"""Train the demo's detector on made-up scenes and write its artifacts to edgecv/demo/.

A one-stage network of about 60,000 parameters for `edgecv.vision.scenes`: every picture is drawn for the step that
learns from it. Ends by measuring recall and precision on a seed that training never saw, and fails below
its limits. Needs the host half; ten minutes on two cores. The same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgecv import backends
from edgecv.core.contract import InputContract
from edgecv.core.protocols import CompileSource
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Detections
from edgecv.core.target import Target
from edgecv.optimize.export import export_program, save_program, write_onnx
from edgecv.recipe.targets import load_target
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import load_artifact
from edgecv.vision.boxes import iou
from edgecv.vision.image import preprocess
from edgecv.vision.scenes import LABELS, Scene, SceneSpec

ROOT = Path(__file__).resolve().parent.parent
SIZE, STRIDE = (192, 256), 8
CONTRACT = InputContract(size=SIZE, color="bgr", resize="stretch")
FAMILY = FamilySpec("detection", LABELS, head="yolo", score_threshold=0.65, iou_threshold=0.45)
SIZES = ((240, 320),) * 6 + ((480, 640), (270, 480))  # of the pictures in training, as often as they stand here
SCENES, NEW_SCENES = 64, 3  # kept at a time, and new ones in each step: a scene costs more than a picture of it
TARGETS = {"onnxruntime": "host-onnxruntime", "openvino": "host-openvino", "litert": "host-litert"}
MIN_RECALL, MIN_PRECISION = 0.97, 0.97


def block(narrow: int, wide: int, stride: int, kernel: int = 3) -> nn.Sequential:
    """A depthwise and a pointwise convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(narrow, narrow, kernel, stride, kernel // 2, groups=narrow, bias=False),
        nn.BatchNorm2d(narrow),
        nn.ReLU(inplace=True),
        nn.Conv2d(narrow, wide, 1, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(inplace=True),
    )


class DemoDetector(nn.Module):
    """Pictures `(N, 3, 192, 256)` -> `(N, 8, 768)`: centre x, y, width, height in pixels, then class scores 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True), block(16, 32, 2)
        )
        self.eighth = nn.Sequential(block(32, 48, 2), block(48, 48, 1))
        self.sixteenth = nn.Sequential(block(48, 72, 2), block(72, 72, 1, 5))
        self.last = nn.Sequential(block(72, 96, 2), block(96, 96, 1, 5), block(96, 72, 1, 5))
        self.up = block(72, 48, 1, 5)
        self.join = nn.Sequential(block(48, 48, 1, 5), block(48, 48, 1, 5))
        self.boxes, self.classes = nn.Conv2d(48, 4, 1), nn.Conv2d(48, len(LABELS), 1)
        nn.init.constant_(self.classes.get_parameter("bias"), -4.0)
        rows, columns = torch.meshgrid(torch.arange(SIZE[0] // STRIDE), torch.arange(SIZE[1] // STRIDE), indexing="ij")
        cells = torch.stack([columns, rows]).flatten(1).float()
        self.register_buffer("centres", ((cells + 0.5) * STRIDE).unsqueeze(0))

    def raw(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes `(N, 4, 768)` as centre and size in pixels, class logits `(N, 4, 768)`."""
        eighth = self.eighth(self.stem(pictures))
        sixteenth = self.sixteenth(eighth)
        deep = functional.interpolate(self.last(sixteenth), scale_factor=2.0, mode="nearest")
        joined = functional.interpolate(self.up(sixteenth + deep), scale_factor=2.0, mode="nearest")
        features = self.join(eighth + joined)
        sides = torch.relu(self.boxes(features).flatten(2) + 4.0) * STRIDE
        left, top, right, bottom = torch.chunk(sides, 4, dim=1)
        shift = torch.cat([right - left, bottom - top], dim=1) / 2
        boxes = torch.cat([self.get_buffer("centres") + shift, left + right, top + bottom], dim=1)
        return boxes, self.classes(features).flatten(2)

    def forward(self, pictures: Tensor) -> Tensor:
        """The network as it is deployed."""
        boxes, logits = self.raw(pictures)
        return torch.cat([boxes, logits.sigmoid()], dim=1)


def new_scene(draws: np.random.Generator) -> Scene:
    """A scene of a seed that no test looks at; without noise, which each picture gets anew."""
    size = SIZES[int(draws.integers(len(SIZES)))]
    objects, seed = int(draws.integers(2, 11)), int(draws.integers(1000, 2**31))
    return Scene(SceneSpec(size=size, objects=objects, seed=seed, noise=0.0))


def example(scene: Scene, draws: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One picture as network input, its boxes in network pixels and classes, and the boxes not to learn from."""
    made = scene.at(float(draws.uniform(0, 1000)))
    height, width = scene.spec.size
    scale = np.array([SIZE[1] / width, SIZE[0] / height] * 2, dtype=np.float32)
    grain = np.empty(made.image.shape, dtype=np.int16)
    cv2.randn(grain, 0, float(draws.uniform(0.0, 5.0)))
    image = cv2.add(made.image, grain, dtype=cv2.CV_8U)
    if draws.random() < 0.3:
        image = cv2.convertScaleAbs(image, alpha=float(draws.uniform(0.7, 1.25)))
    return preprocess(image, CONTRACT), made.boxes * scale, made.class_ids, made.ignored * scale


def targets(boxes: np.ndarray, classes: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each cell the object that it answers for (-1: none), by nearness to its centre; and its class."""
    owner = np.full(centres.shape[1], -1)
    best = np.full(centres.shape[1], np.inf)
    for row, box in enumerate(boxes):
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        offset = np.abs(centres.T - centre)
        near = (offset <= np.minimum(1.5 * STRIDE, np.maximum(half, STRIDE * 0.75))).all(axis=1)
        distance = np.linalg.norm(offset, axis=1)
        mine = near & (distance < best)
        owner[mine], best[mine] = row, distance[mine]
    return owner, np.where(owner >= 0, np.append(classes, 0)[owner], 0)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al., 2019) and IoU of boxes `(K, 4)` as centre and size: `(2, K)`."""
    low, high = one[:, :2] - one[:, 2:] / 2, one[:, :2] + one[:, 2:] / 2
    low2, high2 = other[:, :2] - other[:, 2:] / 2, other[:, :2] + other[:, 2:] / 2
    shared = (torch.minimum(high, high2) - torch.maximum(low, low2)).clamp_min(0).prod(dim=1)
    union = one[:, 2:].prod(dim=1) + other[:, 2:].prod(dim=1) - shared
    hull = (torch.maximum(high, high2) - torch.minimum(low, low2)).prod(dim=1)
    plain = shared / union.clamp_min(1e-6)
    return torch.stack([plain - (hull - union) / hull.clamp_min(1e-6), plain])


def loss_of(model: DemoDetector, batch: list[tuple[np.ndarray, ...]]) -> Tensor:
    """Boxes by generalised IoU, scores by cross entropy against the IoU (varifocal, Zhang et al., 2021)."""
    boxes, logits = model.raw(torch.from_numpy(np.stack([item[0] for item in batch])))
    centres = model.get_buffer("centres")[0].numpy()
    wanted, weight = torch.zeros_like(logits), torch.ones_like(logits)
    box_loss, count = boxes.sum() * 0.0, 0
    for index, (_, truth, classes, ignored) in enumerate(batch):
        owner, kind = targets(truth, classes, centres)
        cells = np.flatnonzero(owner >= 0)
        if len(ignored):
            inside = (centres.T[:, None] > ignored[None, :, :2]) & (centres.T[:, None] < ignored[None, :, 2:])
            covered = np.any(np.all(inside, axis=2), axis=1)
            weight[index, :, torch.from_numpy(covered & (owner < 0))] = 0.0
        if not len(cells):
            continue
        mine = truth[owner[cells]]
        real = torch.from_numpy(np.concatenate([(mine[:, :2] + mine[:, 2:]) / 2, mine[:, 2:] - mine[:, :2]], axis=1))
        both = overlap(boxes[index, :, cells].T, real)
        box_loss = box_loss + (1 - both[0]).sum()
        count += len(cells)
        wanted[index, kind[cells], cells] = both[1].detach().clamp(0.1, 1.0)
    share = logits.sigmoid().detach()
    focus = torch.where(wanted > 0, wanted, 0.75 * share**2) * weight
    score_loss = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * focus
    return (2.0 * box_loss + score_loss.sum()) / max(count, 1)


def train(steps: int, batch_size: int) -> DemoDetector:
    """Train from scratch; prints a line every 100 steps."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cv2.setRNGSeed(0)
    draws = np.random.default_rng(0)
    scenes = [new_scene(draws) for _ in range(SCENES)]
    model = DemoDetector()
    averaging: Any = get_ema_multi_avg_fn(0.998)  # type: ignore[no-untyped-call]
    mean_of = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    started_s, mean = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        for place in draws.integers(SCENES, size=NEW_SCENES):
            scenes[place] = new_scene(draws)
        picked = draws.integers(SCENES, size=batch_size)
        loss = loss_of(model, [example(scenes[place], draws) for place in picked])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        mean_of.update_parameters(model)
        mean = float(loss.detach()) if step == 1 else 0.98 * mean + 0.02 * float(loss.detach())
        if step % 100 == 0:
            print(f"step {step}/{steps}  loss {mean:.3f}  {time.monotonic() - started_s:.0f} s", flush=True)
    trained: Any = mean_of.module
    return cast(DemoDetector, trained.eval())


def write_artifacts(model: DemoDetector, out: Path) -> None:
    """Compile for every engine of this machine and write ``out / ENGINE``, replacing what is there."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        program = export_program(model, torch.zeros(1, 3, *SIZE))
        save_program(program, work / "program.pt2")
        write_onnx(program, work / "model.onnx")
        for engine, target_name in TARGETS.items():
            target: Target = load_target(target_name, base=ROOT)
            made = work / engine
            made.mkdir()
            source = CompileSource("fp32", work / "model.onnx", work / "program.pt2")
            compiled = backends.get(engine).compile(source, target=target, out=made, log=work / "log.txt")
            shutil.rmtree(out / engine, ignore_errors=True)
            import_model(
                made / compiled.model, out=out / engine, name="demo-detector", family=FAMILY, contract=CONTRACT
            )


def score(found: list[Detections], truth: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Recall and precision at an overlap of 0.5, classes counted; what hides behind others is left out."""
    right = wrong = total = 0
    for seen, (boxes, classes, ignored) in zip(found, truth, strict=True):
        total += len(boxes)
        same = iou(seen.boxes, boxes) * (seen.class_ids[:, None] == classes[None])
        taken: set[int] = set()
        hidden = iou(seen.boxes, ignored).max(axis=1, initial=0.0) if len(seen) else np.zeros(0)
        for row in np.argsort(-seen.scores):
            free = [column for column in np.flatnonzero(same[row] >= 0.5) if column not in taken]
            if free:
                taken.add(int(max(free, key=lambda column: same[row, column])))
                right += 1
            elif hidden[row] < 0.3:
                wrong += 1
    return right / max(total, 1), right / max(right + wrong, 1)


def main() -> int:
    """Train, write, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=ROOT / "edgecv" / "demo")
    options = parser.parse_args()
    model = train(options.steps, options.batch)
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")
    write_artifacts(model, options.out)
    scene = Scene(SceneSpec(objects=6, seed=7))
    frames = [scene.frame(index) for index in range(0, 3000, 10)]
    with load_artifact(options.out / "onnxruntime") as loaded:
        found = [loaded.predict(frame.image) for frame in frames]
    recall, precision = score(found, [(frame.boxes, frame.class_ids, frame.ignored) for frame in frames])
    print(f"on {len(frames)} frames of another seed: recall {recall:.3f}, precision {precision:.3f}")
    print("next: python tools/demo_golden.py, for `edgecv verify` to have something to compare with")
    return 0 if recall >= MIN_RECALL and precision >= MIN_PRECISION else 1


if __name__ == "__main__":
    sys.exit(main())
