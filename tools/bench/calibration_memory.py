"""Peak memory of calibration with 64 and with 2,000 pictures, each in a fresh process.

    python tools/bench/calibration_memory.py [--size 96] [--ranges mse]

Exits with 1 where the larger set needs more than 200 MB above the smaller one. The pictures are made on the
fly, so that only what calibration itself keeps can add up: prepared pictures, of which the build keeps 64 MB, and
whatever the observers hold. A small network on small pictures, so that 2,000 end within minutes; what would grow with
the set grows there as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

SMALL, LARGE = 64, 2000
LIMIT_MB = 200.0


def calibrate(count: int, size: int, ranges: str) -> dict[str, float]:
    """Quantise a MobileNetV3 on ``count`` pictures through the build's own batches; peak RSS in MB."""
    import numpy as np
    import torch
    import torchvision

    from edgecv.build.quantize import CALIBRATION_CACHE_MB
    from edgecv.core.contract import InputContract
    from edgecv.core.protocols import Sample
    from edgecv.core.recipe import Quantize
    from edgecv.optimize.batches import make_batches
    from edgecv.optimize.ptq import quantize_ptq

    class Pictures:
        """A data set of random pictures that are not there before they are asked for."""

        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> Sample:
            coarse = np.random.default_rng(index).integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
            return Sample(str(index), coarse.repeat(8, axis=0).repeat(8, axis=1), 0)

    torch.set_num_threads(1)
    torch.manual_seed(0)
    contract = InputContract(size=(size, size), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    batches = make_batches(Pictures(), contract, batch_size=8, cache_mb=CALIBRATION_CACHE_MB).fixed()  # type: ignore[arg-type]
    step = Quantize("ptq", ranges=ranges)  # type: ignore[arg-type]
    started = time.perf_counter()
    example = torch.zeros(1, 3, size, size)
    quantize_ptq(torchvision.models.mobilenet_v3_small().eval(), example, step=step, calibration=batches, samples=count)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"peak_mb": peak_mb, "seconds": time.perf_counter() - started}


def main() -> int:
    """Both runs, one line each, and the verdict."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--size", type=int, default=96)
    options.add_argument("--ranges", default="mse", help="rule of the ranges, as in a recipe (default: mse)")
    options.add_argument("--count", type=int, help="only this one run, printed as JSON")
    given = options.parse_args()
    if given.count is not None:
        print(json.dumps(calibrate(given.count, given.size, given.ranges)))
        return 0
    peaks = {}
    for count in (SMALL, LARGE):
        command = [sys.executable, __file__, "--size", str(given.size), "--ranges", given.ranges, "--count", str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        peaks[count] = found["peak_mb"]
        print(
            f"{given.ranges:12} {count:5} pictures: {found['peak_mb']:7.0f} MB peak, {found['seconds']:6.1f} s",
            flush=True,
        )
    more = peaks[LARGE] - peaks[SMALL]
    print(f"{LARGE} pictures need {more:+.0f} MB against {SMALL} (limit {LIMIT_MB:.0f} MB)")
    return 0 if more <= LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
