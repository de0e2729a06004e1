"""The training loop: learning, reproducing, resuming, stopping, distilling, many processes."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgecv.core.recipe import Distill
from edgecv.errors import ModelError, UsageError
from edgecv.optimize.batches import Lessons, make_batches
from edgecv.optimize.fabric import Devices, launched_processes
from edgecv.optimize.finetune import family_objective
from edgecv.optimize.objectives import Objective
from edgecv.optimize.training import FitResult, Hooks, TrainPlan, fit, learning_rate, top1_score

from .killed import Killed, killed_before
from .tiny_reader import CONTRACT, FAMILY, TinyReader, tiny_net

PLAN = TrainPlan(epochs=4, lr=0.01, devices=Devices("cpu"))
OBJECTIVE = family_objective(FAMILY)


def run(module: nn.Module, plan: TrainPlan = PLAN, **options: Any) -> FitResult:
    train = make_batches(TinyReader(60), CONTRACT, batch_size=16, shuffle_seed=0, augment="crop")
    validation = make_batches(TinyReader(90), CONTRACT, batch_size=16, indices=range(60, 90))
    given = {"train": train, "validation": validation.fixed(), "objective": OBJECTIVE, "plan": plan, **options}
    return fit(module, **given)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_learns(optimizer: Any) -> None:
    result = run(tiny_net(), dataclasses.replace(PLAN, epochs=6, optimizer=optimizer, lr=0.02))
    assert result.best_score is not None
    assert result.best_score > 0.9
    assert result.losses[-1] < result.losses[0] / 2
    assert result.epochs_run == 6
    assert not result.module.training


def test_the_same_seed_gives_the_same_bits_whatever_came_before() -> None:
    torch.manual_seed(1)
    one = run(tiny_net(dropout=0.5))
    torch.manual_seed(2)
    two = run(tiny_net(dropout=0.5))
    other = run(tiny_net(dropout=0.5), dataclasses.replace(PLAN, seed=7))
    assert same_weights(one.module, two.module)
    assert one.history == two.history
    assert one.losses != other.losses


def test_the_callers_settings_come_back() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    run(tiny_net())
    assert torch.equal(torch.rand(1), expected)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("killed_at", [0, 2, 3])
def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path, killed_at: int) -> None:
    whole = run(tiny_net(dropout=0.3))

    path = tmp_path / "made" / "run.pt"
    with pytest.raises(Killed):
        run(tiny_net(dropout=0.3), checkpoint=path, hooks=killed_before(killed_at, Hooks()))
    epochs: list[int] = []
    hooks = Hooks(on_epoch_start=lambda module, epoch: epochs.append(epoch))
    resumed = run(tiny_net(seed=99, dropout=0.3) if killed_at else tiny_net(dropout=0.3), checkpoint=path, hooks=hooks)
    assert epochs == list(range(killed_at, 4))
    assert same_weights(whole.module, resumed.module)
    assert resumed.history == whole.history
    assert [item.name for item in path.parent.iterdir()] == ["run.pt"]


def test_a_checkpoint_of_another_plan_or_a_damaged_one_is_left_aside(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run(tiny_net(), dataclasses.replace(PLAN, lr=0.5), checkpoint=path)
    fresh = run(tiny_net())
    assert same_weights(run(tiny_net(), checkpoint=path).module, fresh.module)
    path.write_bytes(path.read_bytes()[:1000])
    assert same_weights(run(tiny_net(), checkpoint=path).module, fresh.module)
    other_net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert run(other_net, checkpoint=path).epochs_run == 4


def scripted(scores: list[float], losses: list[float] | None = None) -> Objective:
    """Gives each epoch's single validation batch its score and loss; training batches are smaller."""
    remaining, remaining_losses = iter(scores), iter(losses or [1.0] * len(scores))

    def loss(outputs: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
        return OBJECTIVE.loss(outputs, truths) if len(truths) < 30 else torch.tensor(next(remaining_losses))

    return dataclasses.replace(OBJECTIVE, loss=loss, score=lambda outputs, truths: next(remaining))


def weights_per_epoch() -> tuple[list[dict[str, torch.Tensor]], Hooks]:
    seen: list[dict[str, torch.Tensor]] = []

    def remember(module: nn.Module, epoch: int) -> None:
        seen.append({name: value.clone() for name, value in module.state_dict().items()})

    return seen, Hooks(on_epoch_start=remember)


def one_batch() -> Any:
    return make_batches(TinyReader(90), CONTRACT, batch_size=30, indices=range(60, 90)).fixed()


def test_the_best_epoch_comes_back() -> None:
    seen, hooks = weights_per_epoch()
    result = run(tiny_net(), objective=scripted([0.2, 0.8, 0.8, 0.1]), validation=one_batch(), hooks=hooks)
    assert (result.best_epoch, result.best_score) == (1, 0.8)
    assert all(torch.equal(value, result.module.state_dict()[name]) for name, value in seen[2].items())


def test_of_equal_scores_the_lowest_loss_wins() -> None:
    objective = scripted([0.8, 1.0, 1.0, 1.0], [0.1, 0.9, 0.3, 0.5])
    assert run(tiny_net(), objective=objective, validation=one_batch()).best_epoch == 2


def scored_by_batch(epochs: list[list[float]]) -> Objective:
    """Gives the validation batches of each epoch these scores."""
    remaining = iter(score for scores in epochs for score in scores)
    return dataclasses.replace(OBJECTIVE, score=lambda outputs, truths: next(remaining))


FIVES = make_batches(TinyReader(90), CONTRACT, batch_size=5, indices=range(60, 90)).fixed()
MIDDLING, HIGH = [0.5] * 6, [1.0, 0.6, 0.8, 0.4, 1.0, 0.8]
HARDLY_LOWER = [0.8, 0.8, 0.6, 0.6, 0.8, 0.8]
EVERYWHERE_LOWER = [value - 0.03 for value in HIGH]


def test_a_later_epoch_counts_where_chance_may_have_made_the_difference() -> None:
    seen, hooks = weights_per_epoch()
    objective = scored_by_batch([MIDDLING, HIGH, HARDLY_LOWER, EVERYWHERE_LOWER])
    result = run(tiny_net(), objective=objective, validation=FIVES, hooks=hooks)
    assert result.best_epoch == 2
    assert result.best_score == pytest.approx(sum(HARDLY_LOWER) / 6)
    assert all(torch.equal(value, result.module.state_dict()[name]) for name, value in seen[3].items())


def test_patience_counts_from_the_highest_score() -> None:
    plan = dataclasses.replace(PLAN, epochs=9, patience=2)
    objective = scored_by_batch([MIDDLING, HIGH, HARDLY_LOWER, HARDLY_LOWER])
    result = run(tiny_net(), plan, objective=objective, validation=FIVES)
    assert (result.epochs_run, result.best_epoch) == (4, 3)
    assert run(tiny_net(), plan, validation=None).epochs_run == 9


def test_patience_stops_early() -> None:
    plan = dataclasses.replace(PLAN, epochs=9, patience=2)
    result = run(tiny_net(), plan, objective=scripted([0.1, 0.5, 0.5, 0.4, 0.9]), validation=one_batch())
    assert result.epochs_run == 4
    assert result.best_epoch == 1


def test_without_validation_the_last_epoch_counts() -> None:
    result = run(tiny_net(), validation=None)
    assert (result.best_epoch, result.best_score) == (3, None)
    assert result.history[0].validation_loss is None


def test_without_a_score_the_validation_loss_decides() -> None:
    result = run(tiny_net(), objective=dataclasses.replace(OBJECTIVE, score=None))
    best = min(result.history, key=lambda figures: figures.validation_loss or 0.0)
    assert result.best_epoch == best.epoch
    assert result.best_score == pytest.approx(-(best.validation_loss or 0.0))


def test_a_loss_that_explodes_says_so() -> None:
    with pytest.raises(ModelError, match=r"training loss is (nan|inf) in epoch .* Lower lr"):
        run(tiny_net(), dataclasses.replace(PLAN, lr=1e30, optimizer="sgd", warmup=0.0))


def test_modes_are_set_by_the_hook_and_log_gets_a_line_an_epoch() -> None:
    calls: list[bool] = []
    lines: list[str] = []

    def set_mode(module: nn.Module, training: bool) -> None:
        calls.append(training)
        module.train(training)

    run(tiny_net(), dataclasses.replace(PLAN, epochs=2), hooks=Hooks(set_mode=set_mode, log=lines.append))
    assert calls == [True, True, False, True, False, False]
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2: loss 0.")


def test_a_teacher_pulls_the_student_to_its_answers() -> None:
    teacher = run(tiny_net(seed=5), dataclasses.replace(PLAN, epochs=8)).module
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    # The student never sees a truth: its task loss is a constant.
    blind = dataclasses.replace(
        OBJECTIVE, loss=lambda outputs, truths: outputs.sum() * 0.0, teacher=teacher, distill=Distill(weight=1.0)
    )
    result = run(tiny_net(seed=6), dataclasses.replace(PLAN, epochs=8), objective=blind)
    assert result.best_score is not None
    assert result.best_score > 0.9
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())


class _Picking(nn.Module):
    """A picture's 16 pixels as rows, the largest (or the smallest) first, each with its square `(N, 16, 2)`."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign, self.net = sign, tiny_net()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs.flatten(1)[:, :16] + 0.0 * self.net(inputs).sum()
        rows = values.gather(1, torch.topk(values * self.sign, 16, dim=1).indices)
        return torch.stack([rows, rows.square()], dim=2)


def test_a_teacher_answers_for_the_rows_that_the_student_picked() -> None:
    """Both compute the same for every row, in the opposite order: nothing is to be learned, in either part."""
    objective = Objective(
        loss=lambda outputs, truths: outputs.sum() * 0.0,
        teacher=_Picking(-1.0),
        distill=Distill(weight=1.0),
        match=lambda student, teacher: (student - teacher).abs().mean(),
        labels=False,
    )
    result = run(module=_Picking(1.0), objective=objective)
    assert result.losses == (0.0,) * len(result.losses)
    assert result.best_score == 0.0


def test_the_learning_rate_ramps_up_and_falls_like_a_cosine() -> None:
    plan = dataclasses.replace(PLAN, lr=1.0, warmup=0.1)
    rates = [learning_rate(step, total=100, plan=plan) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.0 < rates[-1] < 0.001
    assert learning_rate(0, total=1, plan=dataclasses.replace(plan, warmup=0.0)) == 1.0


def test_top1_score() -> None:
    assert top1_score(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    run(tiny_net(), dataclasses.replace(PLAN, epochs=1))
    assert capfd.readouterr() == ("", "")


def test_bfloat16_trains_on_a_cpu() -> None:
    result = run(tiny_net(), dataclasses.replace(PLAN, epochs=6, lr=0.02, precision="bf16-mixed"))
    assert result.best_score is not None
    assert result.best_score > 0.8
    assert all(value.dtype != torch.bfloat16 for value in result.module.state_dict().values())


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_more_devices_than_processes_is_refused(no_launcher: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"2 devices are asked for and 1 .*torchrun --nproc-per-node=2"):
        run(tiny_net(), dataclasses.replace(PLAN, devices=Devices("cpu", 2)))
    with pytest.raises(UsageError, match="accelerator 'abacus'"):
        run(tiny_net(), dataclasses.replace(PLAN, devices=Devices("abacus")))


def test_launchers_are_recognised(no_launcher: pytest.MonkeyPatch) -> None:
    assert launched_processes() == 1
    no_launcher.setenv("SLURM_PROCID", "0")
    no_launcher.setenv("SLURM_NTASKS_PER_NODE", "4")
    assert launched_processes() == 4
    no_launcher.setenv("LOCAL_RANK", "1")
    no_launcher.setenv("LOCAL_WORLD_SIZE", "2")
    assert launched_processes() == 2


TWO_PROCESSES = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
from optimize.test_training import PLAN, run
from optimize.tiny_reader import tiny_net
result = run(tiny_net())
digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in result.module.state_dict().values()))
print(json.dumps({"weights": digest.hexdigest(), "score": result.best_score}))
"""


def test_pictures_without_truths_count_by_the_teacher_alone() -> None:
    train = make_batches(TinyReader(60), CONTRACT, batch_size=16, shuffle_seed=0)
    extra = make_batches(TinyReader(20), CONTRACT, batch_size=16, shuffle_seed=0)
    counted: list[tuple[int, int]] = []

    def loss(outputs: Any, truths: Any) -> torch.Tensor:
        counted.append((len(outputs), len(truths)))
        return nn.functional.cross_entropy(outputs, truths)

    compared: list[int] = []

    def match(student: Any, teacher: Any) -> torch.Tensor:
        compared.append(len(student))
        return nn.functional.mse_loss(student, teacher)

    objective = Objective(loss, None, tiny_net(seed=1), Distill(weight=0.5), match)
    plan = dataclasses.replace(PLAN, epochs=1)
    run(tiny_net(), plan, train=Lessons(train, extra), objective=objective, validation=None)
    assert counted == [(16, 16), (16, 16), (16, 16), (12, 12)]
    assert compared == [32, 32, 32, 24]


def test_pictures_without_truths_and_without_a_teacher() -> None:
    extra = make_batches(TinyReader(20), CONTRACT, batch_size=16, shuffle_seed=0)
    with pytest.raises(ModelError, match="no teacher to answer for them; set distill above 0"):
        run(tiny_net(), train=Lessons(extra, extra))


@pytest.mark.build
def test_two_processes_end_with_the_same_weights(root: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        # Fabric takes torchrun's word for the ranks only where torchrun's run id is set.
        environment = {
            **os.environ,
            **{name: str(value) for name, value in place.items()},
            "MASTER_ADDR": "127.0.0.1",
            "TORCHELASTIC_RUN_ID": "test",
        }
        command = [sys.executable, "-c", textwrap.dedent(TWO_PROCESSES), str(root / "tests")]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    answers = [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in started]
    assert answers[0] == answers[1]
    assert answers[0]["score"] > 0.5
