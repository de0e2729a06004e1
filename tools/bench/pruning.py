"""Pruning of CIFAR-10 ResNet-20: by MACs against the dense control, and by measured latency against uniform.

Every network has the same budget of epochs on the same labelled data. The control spends it on the dense network. For
the pruned ones a quarter of it goes to the dense network, which is then pruned and teaches what is left for the rest: a
recipe of finetune, prune, finetune with data.unlabelled, whose pictures are pieces of photographs, one beside each
labelled picture (--pieces 0: none). A labelled picture's step is so two pictures' step: two more dense rows say what
that is worth without a cut, one with as many steps' pictures, all labelled, and one that is taught by itself as the
pruned are. Accuracy is on the 1,000 test pictures of cifar10-mini, mean over the seeds, with the 95 % interval of the
paired difference to the network it is held against. Latency is the float network's engine call at batch 1, all networks
in turn in one run; absolute times belong to this machine, the ratio is the figure.

Needs the folder EDGECV_TEST_DATA (cifar10-mini, models/resnet20_cifar10; imagenet-samples, coco-mini and voc-mini for
the pieces).
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecv.core.progress import PlainProgress
from edgecv.core.recipe import Distill, Finetune, ModelSpec, Prune
from edgecv.data.readers import open_reader
from edgecv.models.load import load_model
from edgecv.optimize.batches import make_batches
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import TrainSet, finetune
from edgecv.optimize.latency_probe import EngineProbe
from edgecv.optimize.prune import PruneResult, count_macs, example_input, prune, taylor_batches
from edgecv.optimize.prune_latency import LatencyGoal
from edgecv.recipe.load import load_recipe

sys.path.insert(0, str(Path(__file__).resolve().parent))
from photo_pieces import SmallPieces

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPE = ROOT / "recipes" / "classification" / "cifar10-resnet20.yaml"
MAX_LAYER_RATIO = 0.9
FINE_ROUND_TO = 4
LESSON = Distill(weight=0.9, temperature=4.0, features=("layer?.?",), feature_weight=2.0)
"""The blocks' results, whose width no cut changes, are compared with the teacher's too."""
SAME_TIME = 0.98
"""Speeds this near are the same: the medians of two runs differ by as much."""
MATCHES = 4
"""Cuts by latency that are tried to be as fast as the even one."""
CONTROL, MORE, TAUGHT = "dense control", "dense, as many pictures", "dense, taught alike"


@dataclass(frozen=True)
class Row:
    """One network of the table; ``right`` `(seeds, pictures)` says whether the best class is the truth."""

    name: str
    macs: int
    ms: float
    right: np.ndarray
    right_before: np.ndarray


class Bench:
    """The data, the network, and what is done to each copy of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        loaded = load_recipe(RECIPE)
        self.recipe, self.options, self.progress = loaded.recipe, options, PlainProgress(every_s=20.0)
        target = next(item for item in loaded.targets if item.name == options.target)
        if options.threads:
            target = type(target)(**{**vars(target), "threads": options.threads})
        model: ModelSpec = self.recipe.model
        self.family, self.contract = self.recipe.family, model.input
        labels = self.family.labels
        assert self.recipe.data.train is not None
        train = open_reader(self.recipe.data.train, base=loaded.base, labels=labels, progress=self.progress)
        self.test = open_reader(self.recipe.data.eval, base=loaded.base, labels=labels, progress=self.progress)
        data = Path(os.environ["EDGECV_DATA"])
        pieces = SmallPieces(data, options.pieces, progress=self.progress) if options.pieces else None
        self.train = TrainSet(train, self.contract, self.family, unlabelled=pieces)
        self.dense = load_model(model, family=self.family, base=loaded.base, cache=Path(tempfile.gettempdir()), seed=0)
        self.pictures = taylor_batches(self.train, samples=options.samples, seed=0)
        self.probe = EngineProbe(target, progress=self.progress)
        self.goal = LatencyGoal(target.name, self.probe, options.cache)

    def pruned(self, dense: nn.Module, step: Prune) -> PruneResult:
        """``dense`` after ``step``."""
        return prune(
            dense,
            step=step,
            contract=self.contract,
            family=self.family,
            batches=self.pictures,
            goal=self.goal if step.by_latency else None,
            progress=self.progress,
        )

    def right(self, module: nn.Module) -> np.ndarray:
        """For every test picture: whether the best class is the truth."""
        found = []
        with torch.no_grad():
            for arrays, truths in make_batches(self.test, self.contract, batch_size=100).fixed()():
                found.append(module(torch.from_numpy(arrays)).argmax(dim=1).numpy() == np.asarray(truths))
        return np.concatenate(found)

    def tuned(self, module: nn.Module, *, epochs: int, seed: int, teacher: nn.Module | None = None) -> nn.Module:
        """A copy of ``module`` after so many epochs; with a ``teacher`` it learns from that one mostly, and of
        the pieces of photographs too."""
        options = self.options
        step = Finetune(
            epochs=epochs,
            lr=options.lr if teacher is None else options.pruned_lr,
            batch_size=64,
            optimizer="sgd",
            augment="crop-flip",
            precision="bf16-mixed",
            distill=0.0 if teacher is None else LESSON,
        )
        tuned = finetune(
            copy.deepcopy(module),
            step=step,
            data=self.train,
            teacher=copy.deepcopy(teacher),
            seed=seed,
            devices=Devices("cpu", 1, 1, "auto"),
        )
        return tuned.module


def difference(one: Row, other: Row) -> str:
    """Accuracy of ``one`` minus that of ``other`` in points, with the 95 % interval of the paired difference."""
    apart = one.right.mean(axis=0) - other.right.mean(axis=0)
    half = 1.96 * apart.std(ddof=1) / np.sqrt(apart.size)
    return f"{apart.mean() * 100:+.1f} ± {half * 100:.1f}"


def points(one: Row, other: Row) -> float:
    """Accuracy of ``one`` minus that of ``other`` in points."""
    return float(one.right.mean() - other.right.mean()) * 100


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=32, help="fine-tuning budget of every network")
    parser.add_argument("--lr", type=float, default=0.01, help="peak learning rate of the dense network")
    parser.add_argument("--pruned-lr", type=float, default=0.02, help="peak learning rate after the cut")
    parser.add_argument("--macs", type=float, default=2.1, help="how many times fewer MACs")
    parser.add_argument("--faster", type=float, default=1.4, help="how many times faster")
    parser.add_argument("--target", default="host-onnxruntime", help="engine of this machine")
    parser.add_argument("--threads", type=int, default=1, help="threads of the engine; 0: the target's")
    parser.add_argument("--round-to", type=int, default=None, help="channel counts are multiples of this")
    parser.add_argument("--samples", type=int, default=256, help="pictures for importance and repair")
    parser.add_argument("--pieces", type=int, default=64, help="of a photograph, for which only the teacher answers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the fine-tuning")
    parser.add_argument("--cache", type=Path, default=None, help="folder that keeps the latency table")
    parser.add_argument("--processes", type=int, default=2, help="networks that are tuned at a time")
    parser.add_argument("--no-tuning", action="store_true", help="only the cuts and their times")
    return parser.parse_args()


def main() -> int:
    """Tune, prune, tune, time; print one table and the verdicts."""
    options = parse()
    torch.set_num_threads(1)
    os.environ.setdefault("EDGECV_DATA", os.environ.get("EDGECV_TEST_DATA", str(ROOT.parent / "shared" / "data")))
    bench = Bench(options)
    if options.no_tuning:
        say_untuned(bench, cuts(bench, bench.dense))
        return 0
    with ProcessPoolExecutor(options.processes, get_context("spawn"), _start, (options,)) as pool:
        first = max(1, options.epochs // 4)
        rest = options.epochs - first
        wanted = pool.submit(_tuned, "dense, a quarter of the budget", bench.dense, first, 0, None)
        jobs = {CONTROL: tuned_all(pool, options, CONTROL, bench.dense, options.epochs)}
        adapted = wanted.result()
        results = cuts(bench, adapted)
        before = say_untuned(bench, results)
        for name, result in results.items():
            jobs[name] = tuned_all(pool, options, name, result.module, rest, adapted)
        if options.pieces:
            jobs[MORE] = tuned_all(pool, options, MORE, bench.dense, first + 2 * rest)
            jobs[TAUGHT] = tuned_all(pool, options, TAUGHT, adapted, rest, adapted)
        rights = {name: np.stack([bench.right(job.result()) for job in seeds]) for name, seeds in jobs.items()}
    modules = {CONTROL: bench.dense, **{name: result.module for name, result in results.items()}}
    times = bench.probe.networks_ms(list(modules.values()), example_input(bench.contract))
    ms = dict(zip(modules, times, strict=True))
    rows = []
    for name, right in rights.items():
        cut = name if name in modules else CONTROL
        macs = count_macs(modules[cut], example_input(bench.contract))
        rows.append(Row(name, macs, ms[cut], right, before[cut]))
    show(rows, options)
    return 0


def say_untuned(bench: Bench, results: dict[str, PruneResult]) -> dict[str, np.ndarray]:
    """What is right before any tuning, of the dense network and the pruned ones; their accuracies are printed."""
    before = {CONTROL: bench.right(bench.dense), **{name: bench.right(item.module) for name, item in results.items()}}
    print("untuned:", ", ".join(f"{right.mean():.1%}" for right in before.values()), flush=True)
    return before


def tuned_all(
    pool: ProcessPoolExecutor,
    options: argparse.Namespace,
    name: str,
    module: nn.Module,
    epochs: int,
    teacher: nn.Module | None = None,
) -> list[Future[nn.Module]]:
    """`Bench.tuned` with every seed, in the working processes."""
    return [pool.submit(_tuned, name, module, epochs, seed, teacher) for seed in options.seeds]


_BENCH: Bench | None = None


def _start(options: argparse.Namespace) -> None:
    """What a working process needs once."""
    global _BENCH
    torch.set_num_threads(1)
    _BENCH = Bench(options)


def _tuned(name: str, module: nn.Module, epochs: int, seed: int, teacher: nn.Module | None) -> nn.Module:
    """`Bench.tuned` in a working process, with a line of progress."""
    assert _BENCH is not None  # set by _start
    tuned = _BENCH.tuned(module, epochs=epochs, seed=seed, teacher=teacher)
    right = _BENCH.right(tuned)
    print(f"{time.strftime('%H:%M:%S')} {name}, seed {seed}: {right.mean():.1%}", file=sys.stderr, flush=True)
    return tuned


def cuts(bench: Bench, dense: nn.Module) -> dict[str, PruneResult]:
    """The three pruned networks, by their names in the table; their widths are printed."""
    options = bench.options
    common = {"max_layer_ratio": MAX_LAYER_RATIO, "round_to": options.round_to}
    # In steps as coarse as the target's an even cut reaches few speeds: it gets finer ones, to its advantage.
    fine = {**common, "round_to": options.round_to or FINE_ROUND_TO}
    uniform = bench.pruned(dense, Prune(speedup=options.faster, by="latency", scope="uniform", **fine))
    results = {
        f"{options.macs:g}x fewer MACs": bench.pruned(dense, Prune(speedup=options.macs, **fine)),
        "by latency": as_fast(bench, dense, uniform.module, common),
        "uniform, same latency": uniform,
    }
    for name, result in results.items():
        widths = ", ".join(f"{layer} {one}->{two}" for layer, (one, two) in result.layers.items() if one != two)
        print(f"{name}: {widths}")
        if result.latency is not None:
            print(f"  {result.latency.to_dict()}", flush=True)
    return results


def as_fast(bench: Bench, dense: nn.Module, other: nn.Module, common: dict[str, Any]) -> PruneResult:
    """The cut by latency that is asked for more or less speed until it has that of ``other``, both measured in turn."""
    factor, best = bench.options.faster, None
    for _ in range(MATCHES):
        found = bench.pruned(dense, Prune(speedup=factor, by="latency", **common))
        mine, wanted = bench.probe.networks_ms([found.module, other], example_input(bench.contract))
        speed = wanted / mine
        print(f"by latency, asked for {factor:.2f}x: {speed:.3f}x the speed of the even cut", flush=True)
        if speed >= SAME_TIME and (best is None or speed < best[1]):
            best = found, speed
        if SAME_TIME <= speed <= 1 / SAME_TIME:
            break
        factor /= speed
    return found if best is None else best[0]


def show(rows: list[Row], options: argparse.Namespace) -> None:
    """The table and the verdicts."""
    named = {row.name: row for row in rows}
    control, macs, latency, uniform = rows[:4]
    threads = options.threads or "default"
    print(f"\n{options.target} (float), {threads} threads; {options.epochs} epochs in all, seeds {options.seeds}")
    heads = f"{'network':24} {'MACs':>8} {'fewer':>6} {'ms':>7} {'faster':>7} {'untuned':>8} {'top-1':>7}"
    print(f"{heads}  {'to control':>12}")
    for row in rows:
        print(
            f"{row.name:24} {row.macs / 1e6:>6.1f} M {control.macs / row.macs:>5.2f}x {row.ms:>7.4f} "
            f"{control.ms / row.ms:>6.2f}x {row.right_before.mean():>8.1%} {row.right.mean():>7.1%}  "
            f"{difference(row, control):>12}"
        )
    met = points(macs, control) >= -1.5
    print(
        f"{macs.name} against the control: {difference(macs, control)} points, wanted -1.5 or more: "
        f"{'met' if met else 'MISSED'}"
    )
    for name in (MORE, TAUGHT):
        if name in named:
            print(f"{macs.name} against {name}: {difference(macs, named[name])} points")
    faster, better = uniform.ms / latency.ms, points(latency, uniform)
    met = better >= 0 and faster >= SAME_TIME
    print(
        f"by latency against uniform: {difference(latency, uniform)} points at {faster:.3f}x its speed, wanted 0 or "
        f"more at the same latency ({SAME_TIME}x or more) or 1.1x at the same accuracy: {'met' if met else 'MISSED'}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
