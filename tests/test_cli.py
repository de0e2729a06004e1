"""The command line: what it costs, what it says, and the exit code of every kind of error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgecv import cli, errors

HEAVY = ("torch", "onnx", "yaml", "pydantic", "onnxruntime", "openvino", "sklearn", "rich")


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys; from edgecv import cli; cli.parser(); print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "edgecv",
        "edgecv.runtime.load",
        "edgecv.runtime.importer",
        "edgecv.runtime.prove",
        "edgecv.measure.latency",
        "edgecv.measure.accuracy",
        "edgecv.report.render",
        "edgecv.commands.artifact",
        "edgecv.commands.reports",
        "edgecv.data.readers",
    ],
)
def test_the_device_half_loads_nothing_of_the_host_half(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        "init",
        "optimize",
        "build",
        "run",
        "bench",
        "eval",
        "verify",
        "report",
        "compare",
        "doctor",
        "list",
        "calibrate",
        "import",
    ]
    for name in names:
        with pytest.raises(SystemExit) as stopped:
            cli.main([name, "--help"])
        assert stopped.value.code == 0
        assert capsys.readouterr().out.startswith("usage: edgecv")


@pytest.mark.parametrize(
    "arguments", [[], ["optimise"], ["optimize"], ["list", "boards"], ["report", "a", "--format", "pdf"]]
)
def test_wrong_words_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "--help" in capsys.readouterr().err


def test_every_error_class_has_its_exit_code() -> None:
    codes = {
        "EdgecvError": 1,
        "UsageError": 2,
        "RecipeError": 2,
        "ModelError": 2,
        "DataError": 2,
        "BudgetError": 3,
        "MeasurementError": 4,
        "ToolchainError": 5,
        "ArtifactError": 6,
    }
    assert {name: getattr(errors, name).exit_code for name in codes} == codes


def test_an_error_is_a_message_and_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(tmp_path)]) == 6
    shown = capsys.readouterr()
    assert "is not an artifact" in shown.err
    assert "Traceback" not in shown.err


def test_with_json_the_error_is_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(tmp_path), "--json"]) == 6
    error = json.loads(capsys.readouterr().out)
    assert (error["kind"], error["exit_code"]) == ("ArtifactError", 6)


def test_all_problems_of_a_recipe_are_shown_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yaml").write_text("recipe: 1\nname: Bad Name\nmodle: {}\n", encoding="utf-8")
    assert cli.main(["optimize", str(tmp_path / "r.yaml")]) == 2
    shown = capsys.readouterr().err
    assert "problems found before any work" in shown
    assert "r.yaml:2" in shown
    assert "did you mean 'model'" in shown


def test_a_defect_asks_for_a_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from edgecv.commands import info

    def broken(options: object) -> int:
        raise ZeroDivisionError("x / 0")

    monkeypatch.setattr(info, "doctor", broken)
    assert cli.main(["doctor"]) == 1
    assert "a defect of edgecv (ZeroDivisionError: x / 0)" in capsys.readouterr().err


def test_a_stop_by_the_keyboard_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv.commands import info

    def stopped(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "doctor", stopped)
    assert cli.main(["doctor"]) == 130


@pytest.mark.parametrize("what", ["targets", "recipes", "backends", "families", "calibration"])
def test_list_prints_a_table_and_json(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", what]) == 0
    table = capsys.readouterr().out
    assert cli.main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(row["name"] in table for row in rows)


def test_doctor_names_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("onnxruntime", "openvino", "litert", "coreml", "tensorrt"))
    assert cli.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["cores"] >= 1


def test_init_writes_a_recipe_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.yaml"
    assert cli.main(["init", "torchvision:resnet18", "--out", str(path)]) == 0
    assert path.read_text(encoding="utf-8").count("#") > 5
    assert cli.main(["init", "torchvision:resnet18", "--out", str(path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert cli.main(["init", "torchvision:resnet18", "--out", str(path), "--force"]) == 0


def test_init_of_an_unknown_model_says_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "torchvision:resnet81", "--out", "-"]) == 2
    assert "resnet18" in capsys.readouterr().err


def test_dry_run_prints_the_plan_and_stops(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(root / "recipes" / "classification" / "digits.yaml")
    arguments = ["optimize", recipe, "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"), "--dry-run"]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "to do" in text
    assert "jetson-orin-nano" in text
    assert cli.main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [step["kind"] for step in plan["steps"]][:5] == ["load", "export", "prune", "finetune", "quantize"]
    assert not any(step["cached"] for step in plan["steps"])
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "out").exists()
