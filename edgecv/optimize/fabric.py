"""Lightning Fabric, quiet: devices, processes and mixed precision of a training run."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from typing import Any, Literal

from edgecv.errors import UsageError

__all__ = ["Devices", "launch_fabric", "launched_processes"]


@dataclass(frozen=True)
class Devices:
    """What training runs on, in Fabric's words.

    ``devices`` is a count for each of ``num_nodes`` machines, or ``auto``: one, or as many as a
    launcher (torchrun, Slurm) started processes. ``accelerator``: auto, cpu, gpu, mps.
    """

    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"


def launched_processes() -> int:
    """How many processes a launcher (torchrun, Slurm) started for this run on this machine; 1 without one."""
    if "LOCAL_RANK" in os.environ:
        return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1"))))
    if "SLURM_PROCID" in os.environ:
        return max(1, int(os.environ.get("SLURM_NTASKS_PER_NODE", "1")))
    return 1


def launch_fabric(on: Devices, *, precision: str) -> Any:
    """A launched `lightning_fabric.Fabric`; ``precision`` is 32, 16-mixed or bf16-mixed.

    Fabric's own launcher would start this program again from the top, builds and all, so the
    processes have to be there already.

    Raises:
        UsageError: more devices than processes, or an accelerator that this machine lacks.
    """
    started = launched_processes()
    devices = started if on.devices == "auto" else on.devices
    if devices != started:
        raise UsageError(
            f"{devices} devices are asked for and {started} training process(es) were started; start edgecv with "
            f"'torchrun --nproc-per-node={devices} --no-python edgecv ...', or use devices 'auto'."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightning_fabric import Fabric

        logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
        try:
            fabric = Fabric(
                accelerator=on.accelerator,
                devices=devices,
                num_nodes=on.num_nodes,
                strategy="ddp" if on.strategy == "auto" and devices * on.num_nodes > 1 else on.strategy,
                precision=precision,
            )
            fabric.launch()
        except (RuntimeError, ValueError, ImportError) as error:
            raise UsageError(
                f"training cannot start on accelerator {on.accelerator!r} with strategy {on.strategy!r} and "
                f"precision {precision!r}: {error}"
            ) from error
    return fabric
