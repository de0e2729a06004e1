"""Networks that look at one frame at a time and carry what they saw before in a state.

Such a network has two forms with the same weights. Its *clip form* takes whole clips, `(N, T * C, H, W)`, and is what
is pruned and trained: every frame's past is the frames before it in the clip, and zeros before the first. Its *step
form*, `StepForm`, takes one frame `(1, C, H, W)` and the state, and gives the scores and the next state; it is what
is quantised, exported and run. Fed the frames of a clip one after another, from a state of zeros, it computes what
the clip form does for the last frame, because each part with a memory (`TimeConv`, `Shift`) computes both.

The state is one tensor for each such part, in the order of the network's modules. It leaves a part as it goes into
it the next time, so that it needs no work between two frames; in int8 both have one scale, because the joining of
old and new frames keeps one scale for all that it joins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecv.core.contract import InputContract
from edgecv.errors import ModelError

__all__ = ["Shift", "StepForm", "TimeConv", "Unrolled", "check_streams", "deploy_form", "whole_form"]


@dataclass
class _Tape:
    """The state on its way through a network: the parts take theirs from ``past`` and leave the next in ``fresh``."""

    past: Iterator[Tensor]
    fresh: list[Tensor] = field(default_factory=list)

    def take(self, features: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The state of the next part; where the tape has none, zeros of this ``shape`` for each of the frames."""
        found = next(self.past, None)
        return features.new_zeros((features.shape[0], *shape)) if found is None else found


class TimeConv(nn.Module):
    """A depthwise convolution over time: each channel of a frame with its own past, ``kernel`` frames in all.

    Takes and gives the frames of clips, `(N * frames, C, h, w)`. Each frame is laid out as one row of h * w pixels, and
    the rows of frames below each other: there a convolution over time is an ordinary one that is one pixel wide. Few
    engines compute three-dimensional convolutions in int8. State: the ``kernel - 1`` frames before, as such rows,
    `(1, C, kernel - 1, h * w)`.
    """

    def __init__(self, channels: int, *, frames: int, kernel: int = 3) -> None:
        super().__init__()
        self.frames, self.kernel = frames, kernel
        self.conv = nn.Conv2d(channels, channels, (kernel, 1), groups=channels, bias=False)
        self.tape: _Tape | None = None

    def forward(self, features: Tensor) -> Tensor:
        _, channels, height, width = features.shape
        if self.tape is not None:
            before = self.tape.take(features, (channels, self.kernel - 1, height * width))
            rows = torch.cat([before, features.reshape(-1, channels, 1, height * width)], dim=2)
            self.tape.fresh.append(rows[:, :, 1:])
            stepped: Tensor = self.conv(rows)
            return stepped.reshape(features.shape)
        rows = features.reshape(-1, self.frames, channels, height * width).transpose(1, 2)
        found = self.conv(functional.pad(rows, (0, 0, self.kernel - 1, 0)))
        back: Tensor = found.transpose(1, 2).reshape(features.shape)
        return back


class Shift(nn.Module):
    """The first channels of each frame are those of the frame before: a share of ``1 / parts`` of them.

    The online form of J. Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding",
    arXiv:1811.08383. Takes and gives the frames of clips, `(N * frames, C, h, w)`. State: `(1, C // parts, h, w)`.
    """

    def __init__(self, *, frames: int, parts: int = 8) -> None:
        super().__init__()
        self.frames, self.parts = frames, parts
        self.tape: _Tape | None = None

    def forward(self, features: Tensor) -> Tensor:
        moved = features.shape[1] // self.parts
        if self.tape is not None:
            before = self.tape.take(features, (moved, *features.shape[2:]))
            self.tape.fresh.append(features[:, :moved])
            return torch.cat([before, features[:, moved:]], dim=1)
        clips = features.reshape(-1, self.frames, *features.shape[1:])
        before = functional.pad(clips[:, :-1, :moved], (0, 0, 0, 0, 0, 0, 1, 0))
        return torch.cat([before, clips[:, :, moved:]], dim=2).reshape(features.shape)


class StepForm(nn.Module):
    """The step form of ``module``: `(1, C, H, W)` and its state -> scores `(1, classes)` and the next state.

    It shares the weights of ``module``, which takes clips as before in between. In training the frames of several clips
    go through it at once, `(N, C, H, W)` with N states.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    @property
    def frames(self) -> int:
        """Frames of the clips that ``module`` takes."""
        return max(part.frames for part in _parts(self.module))

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        with _switched(self.module, _Tape(iter(state))) as tape:
            scores = self.module(frame)
        return (scores, *tape.fresh)


class Unrolled(nn.Module):
    """``step``, a step form or what was made of one, over whole clips: `(N, T * C, H, W)` -> `(N, classes)`.

    ``example`` are the inputs of ``step`` for one frame; each clip begins with their state (zeros). The scores are
    those of a clip's last frame, and gradients go back through all frames. ``together``: ``step`` takes frames of
    several clips at once, as in training; else clip after clip goes through it.
    """

    def __init__(self, step: nn.Module, example: tuple[Tensor, ...], *, together: bool = False) -> None:
        super().__init__()
        self.step, self.together = step, together
        self.start, self.channels = example[1:], example[0].shape[1]

    def steps(self, clips: Tensor) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Frame by frame of clips `(N, T * C, H, W)`: what goes into ``step`` (the frames and the state by then) and
        the scores that come out."""
        count = clips.shape[0]
        state = tuple(item.to(clips.device).expand(count, *item.shape[1:]) for item in self.start)
        for frame in clips.split(self.channels, dim=1):
            scores, *fresh = self.step(frame, *state)
            yield (frame, *state), scores
            state = tuple(fresh)

    def forward(self, clips: Tensor) -> Tensor:
        parts = (clips,) if self.together else clips.split(1)
        return torch.cat([deque(self.steps(part), maxlen=1)[0][1] for part in parts])


def deploy_form(module: nn.Module, contract: InputContract) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """What is quantised and exported of ``module``, and its inputs for a picture (or clip) of zeros, batch 1.

    That is ``module`` itself; for a network that streams its step form, which takes a frame and a state of zeros. How
    large the state is follows from ``module`` as it is, so that it may have been pruned.

    Raises:
        ModelError: the contract says that the network streams, and no part of it has a state.
    """
    if not contract.streams:
        return module, (torch.zeros(1, contract.planes, *contract.size),)
    check_streams(module)
    frame = torch.zeros(1, contract.channels, *contract.size)
    with torch.no_grad(), _switched(module, _Tape(iter(()))) as tape:
        module(frame)
    return StepForm(module), (frame, *(torch.zeros_like(item) for item in tape.fresh))


def whole_form(step: nn.Module, example: tuple[Tensor, ...], contract: InputContract) -> nn.Module:
    """What `deploy_form` gave, or what was made of it, as a network that takes pictures or whole clips again.

    ``example`` are its inputs.
    """
    return Unrolled(step, example) if contract.streams else step


def check_streams(module: nn.Module) -> None:
    """Raise `ModelError` where no part of ``module`` has a state."""
    if not _parts(module):
        raise ModelError(
            f"model.input.clip.stream is true, and {type(module).__name__} has no part that keeps a state; build it of "
            "TimeConv or Shift (edgecv.models.streaming), or leave stream out"
        )


def _parts(module: nn.Module) -> list[TimeConv | Shift]:
    return [part for part in module.modules() if isinstance(part, TimeConv | Shift)]


@contextmanager
def _switched(module: nn.Module, tape: _Tape) -> Iterator[_Tape]:
    """``module`` in its step form, with the state of ``tape``, while the block runs."""
    for part in _parts(module):
        part.tape = tape
    try:
        yield tape
    finally:
        for part in _parts(module):
            part.tape = None
