"""Pruning of CIFAR-10 ResNet-20: by MACs against the dense control, and by measured latency against uniform.

Every network is fine-tuned with the same budget from the same data, with the published network as teacher; the
control is the dense network with that very budget. Accuracy is on the 1,000 test pictures of cifar10-mini, with the
95 % interval of the paired difference to the network it is held against. Latency is the float network's engine call
at batch 1, all networks in turn in one run; absolute times belong to this machine, the ratio is the figure.

Needs the folder EDGECV_TEST_DATA (cifar10-mini and models/resnet20_cifar10).
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgecv.core.progress import PlainProgress
from edgecv.core.recipe import Finetune, ModelSpec, Prune
from edgecv.data.readers import open_reader
from edgecv.models.load import load_model
from edgecv.optimize.batches import make_batches
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import TrainSet, finetune
from edgecv.optimize.latency_probe import EngineProbe
from edgecv.optimize.prune import PruneResult, count_macs, example_input, prune, taylor_batches
from edgecv.optimize.prune_latency import LatencyGoal
from edgecv.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPE = ROOT / "recipes" / "classification" / "cifar10-resnet20.yaml"
MAX_LAYER_RATIO = 0.9


@dataclass(frozen=True)
class Row:
    """One network of the table; ``right`` says for every test picture whether its best class is the truth."""

    name: str
    module: nn.Module
    macs: int
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
        self.train = TrainSet(train, self.contract, self.family)
        self.dense = load_model(model, family=self.family, base=loaded.base, cache=Path(tempfile.gettempdir()), seed=0)
        self.taylor = taylor_batches(self.train, samples=options.samples, seed=0)
        self.probe = EngineProbe(target, progress=self.progress)
        self.goal = LatencyGoal(target.name, self.probe, options.cache)

    def pruned(self, step: Prune) -> PruneResult:
        """The dense network after ``step``."""
        return prune(
            self.dense,
            step=step,
            contract=self.contract,
            family=self.family,
            batches=self.taylor,
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

    def tuned(self, name: str, module: nn.Module) -> Row:
        """The table's row of ``module`` after the budget."""
        options = self.options
        step = Finetune(
            epochs=options.epochs, lr=options.lr, batch_size=64, optimizer="sgd", augment="crop-flip", distill=0.5
        )
        started_s, before = time.perf_counter(), self.right(module)
        result = finetune(
            copy.deepcopy(module),
            step=step,
            data=self.train,
            teacher=copy.deepcopy(self.dense),
            seed=options.seed,
            devices=Devices("cpu", 1, 1, "auto"),
        )
        right = self.right(result.module)
        seconds = time.perf_counter() - started_s
        print(f"{name}: {before.mean():.1%} -> {right.mean():.1%} in {seconds:.0f} s", file=sys.stderr, flush=True)
        return Row(name, result.module, count_macs(module, example_input(self.contract)), right, before)


def difference(one: Row, other: Row) -> str:
    """Accuracy of ``one`` minus that of ``other`` in points, with the 95 % interval of the paired difference."""
    apart = one.right.astype(np.float64) - other.right.astype(np.float64)
    half = 1.96 * apart.std(ddof=1) / np.sqrt(apart.size)
    return f"{apart.mean() * 100:+.1f} ± {half * 100:.1f}"


def main() -> int:
    """Prune, fine-tune, time; print one table and the two verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4, help="fine-tuning budget of every network")
    parser.add_argument("--lr", type=float, default=0.02, help="peak learning rate")
    parser.add_argument("--macs", type=float, default=2.1, help="how many times fewer MACs")
    parser.add_argument("--faster", type=float, default=1.5, help="how many times faster")
    parser.add_argument("--target", default="host-onnxruntime", help="engine of this machine")
    parser.add_argument("--threads", type=int, default=1, help="threads of the engine; 0: the target's")
    parser.add_argument("--importance", default="magnitude", help="which channels matter")
    parser.add_argument("--samples", type=int, default=256, help="pictures for Taylor importance and repair")
    parser.add_argument("--seed", type=int, default=0, help="of the fine-tuning")
    parser.add_argument("--cache", type=Path, default=None, help="folder that keeps the latency table")
    parser.add_argument("--no-tuning", action="store_true", help="only the cuts and their times")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("EDGECV_DATA", os.environ.get("EDGECV_TEST_DATA", str(ROOT.parent / "shared" / "data")))
    bench = Bench(options)
    common = {"importance": options.importance, "max_layer_ratio": MAX_LAYER_RATIO, "repair": True}
    by_macs = bench.pruned(Prune(speedup=options.macs, **common))
    by_latency = bench.pruned(Prune(speedup=options.faster, by="latency", **common))
    assert by_latency.latency is not None
    # The time that the latency-driven cut really has, not the one that it was asked for.
    factor = by_latency.latency.before_ms / by_latency.latency.after_ms
    uniform = bench.pruned(Prune(speedup=factor, by="latency", scope="uniform", **common))
    assert uniform.latency is not None
    results = {
        f"{options.macs:g}x fewer MACs, global": by_macs,
        "by latency": by_latency,
        "uniform, same latency": uniform,
    }
    times = bench.probe.networks_ms(
        [bench.dense, *(result.module for result in results.values())], example_input(bench.contract)
    )
    for name, result in results.items():
        widths = ", ".join(f"{layer} {one}->{two}" for layer, (one, two) in result.layers.items() if one != two)
        print(f"{name}: {widths}")
        if result.latency is not None:
            print(f"  {result.latency.to_dict()}")
    if options.no_tuning:
        print(times, [f"{bench.right(result.module).mean():.1%}" for result in results.values()])
        return 0
    rows = [bench.tuned("dense control", bench.dense)]
    rows += [bench.tuned(name, result.module) for name, result in results.items()]
    show(rows, times, options)
    return 0


def show(rows: list[Row], times: list[float], options: argparse.Namespace) -> None:
    """The table."""
    control, macs, latency, uniform = rows
    print(f"\n{options.target}, {options.threads or 'default'} threads; {options.epochs} epochs, seed {options.seed}")
    heads = f"{'network':28} {'MACs':>8} {'fewer':>6} {'ms':>7} {'faster':>7} {'untuned':>8} {'top-1':>7}"
    print(f"{heads}  {'to control':>12}")
    for row, ms in zip(rows, times, strict=True):
        print(
            f"{row.name:28} {row.macs / 1e6:>6.1f} M {control.macs / row.macs:>5.2f}x {ms:>7.4f} "
            f"{times[0] / ms:>6.2f}x {row.right_before.mean():>8.1%} {row.right.mean():>7.1%}  "
            f"{difference(row, control):>12}"
        )
    print(
        f"{options.macs:g}x fewer MACs against the control: {difference(macs, control)} points (wanted: -1.5 or more)"
    )
    print(
        f"by latency against uniform: {difference(latency, uniform)} points at {times[3] / times[2]:.3f}x its speed "
        "(wanted: 0 or more at the same latency, or 1.1x at the same accuracy)"
    )


if __name__ == "__main__":
    raise SystemExit(main())
