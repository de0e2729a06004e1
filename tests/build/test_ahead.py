"""Compiles in processes of their own: they are the run's own, and a process that dies costs nothing but time."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from edgecv import cli
from edgecv.build.ahead import Ahead
from edgecv.build.context import Context, Hardware
from edgecv.build.inputs import gather
from edgecv.build.plan import make_plan
from edgecv.build.store import Store
from edgecv.build.target_steps import compile_file
from edgecv.core.progress import SilentProgress
from edgecv.recipe.load import load_recipe

from .conftest import SHORT, DigitsRun

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("digits")]


@pytest.fixture
def context(digits_run: DigitsRun, tmp_path: Path) -> Context:
    """The finished digits run, whose int8 file for LiteRT is gone."""
    loaded = load_recipe(digits_run.recipe, sets=list(SHORT))
    plan = make_plan(loaded, only=["raspberry-pi-5"], inputs=gather(loaded))
    shutil.copytree(digits_run.cache, tmp_path / "cache")
    store = Store(tmp_path / "cache")
    shutil.rmtree(store.folder(plan.targets[0].optimized.compile.key))
    return Context(plan, store, SilentProgress(), tmp_path / "log", Hardware())


def test_what_another_process_compiles_is_what_the_run_compiles(
    context: Context, digits_run: DigitsRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecv.build.ahead._LAST_S", 300.0)  # it ends by itself, on a busy machine not in 30 s
    key = context.plan.targets[0].optimized.compile.key
    ahead = Ahead(context, jobs=1)
    try:
        ahead.prepare()
        assert len(ahead._processes) == 1, "its compiler is loaded before there is anything to compile"
        assert ahead.taken == set()
        ahead.offer()
        ahead.settle()
    finally:
        ahead.close()
    assert ahead.taken == {key}  # the float file is still there
    assert [process.running.returncode for process in ahead._processes] == [0], (
        "it was not killed: nothing was left to do"
    )
    done, before = context.store.record(key), Store(digits_run.cache).record(key)
    assert done is not None
    assert before is not None
    assert done.effect == before.effect


def test_nothing_is_given_away_before_its_graph_is_exported_or_without_processes(context: Context) -> None:
    assert Ahead(context, jobs=0).taken == set()
    shutil.rmtree(context.store.folder(context.plan.targets[0].optimized.export.key))
    waiting, none = Ahead(context, jobs=1), Ahead(context, jobs=0)
    for ahead in (waiting, none):
        ahead.prepare()
        ahead.offer()
        assert ahead.taken == set()
        ahead.close()
    assert none._processes == []


def test_a_process_that_dies_is_not_waited_for_and_its_step_stays_to_be_done(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = Ahead(context, jobs=1)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", shutil.which("false"))  # ends at once
        ahead.prepare()
        ahead.offer()
    ahead.settle()
    ahead.close()
    assert context.store.record(context.plan.targets[0].optimized.compile.key) is None


def test_what_a_killed_compile_left_is_no_hindrance(context: Context, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "half").touch()
    file, target = context.plan.targets[0].float_reference, context.plan.targets[0].target
    exported = context.store.folder(file.export.key)
    compile_file(exported, file.precision, target, tmp_path / "log", tmp_path)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.tflite"]


@pytest.mark.parametrize("jobs", ["-1", "many", "1.5"])
def test_a_number_of_processes_that_is_none_is_refused(
    jobs: str, digits_run: DigitsRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["optimize", str(digits_run.recipe), f"--jobs={jobs}", "--dry-run"]) == 2
    assert f"jobs is '{jobs}'; allowed: auto, or how many processes" in capsys.readouterr().err
