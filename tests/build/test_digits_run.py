"""The whole line on real handwriting: one recipe in, five compiled, proven and measured artifacts out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgecv import cli
from edgecv.build.store import Store
from edgecv.core.artifact import MANIFEST, check_files, read_manifest
from edgecv.report.schema import ArtifactFigures
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact

from .conftest import DigitsRun, command

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("digits")]

TARGETS = ("host-onnxruntime", "host-openvino", "raspberry-pi-5", "iphone-15", "jetson-orin-nano")
RUN_HERE = TARGETS[:3]


def optimized(run: DigitsRun, target: str) -> ArtifactFigures:
    return next(item for item in run.report.artifacts if item.target == target and item.role == "optimized")


def to_do(run: DigitsRun, *sets: str) -> list[str]:
    """Kinds of the steps that a dry run with these settings would do."""
    more = [word for item in sets for word in ("--set", item)]
    done = subprocess.run(run.command(*more, "--dry-run", "--json"), capture_output=True, text=True, check=True)
    return [step["kind"] for step in json.loads(done.stdout)["steps"] if not step["cached"]]


def test_it_ends_with_all_budgets_met_and_says_where_the_report_is(digits_run: DigitsRun) -> None:
    assert digits_run.code == 0, digits_run.stdout + digits_run.stderr
    assert digits_run.report.outcome == "pass"
    assert str(digits_run.out / "report.html") in digits_run.stdout
    assert all(target in digits_run.stdout for target in TARGETS)


def test_a_dry_run_names_the_steps_in_the_order_of_the_run(digits_run: DigitsRun) -> None:
    done = subprocess.run(digits_run.command("--dry-run", "--json"), capture_output=True, text=True, check=True)
    titles = [step["title"] for step in json.loads(done.stdout)["steps"]]
    assert titles == [step.title for step in digits_run.report.steps]


def test_progress_is_plain_lines_and_third_party_chatter_is_in_the_log(digits_run: DigitsRun) -> None:
    assert "\x1b[" not in digits_run.stderr
    lines = digits_run.stderr.splitlines()
    assert any(line.startswith("fine-tune 6 epochs: ") for line in lines)
    assert not [line for line in lines if "Warning" in line or "WARNING" in line or "INFO" in line]
    assert (digits_run.out / "edgecv.log").is_file()


@pytest.mark.parametrize("target", TARGETS)
def test_every_artifact_is_whole_and_its_chain_is_complete(digits_run: DigitsRun, target: str) -> None:
    manifest = read_manifest(digits_run.out / target)
    check_files(digits_run.out / target, manifest)
    assert manifest.status == ("deferred" if target == "jetson-orin-nano" else "ready")
    chain = manifest.chain
    assert all(len(link) == 64 for link in (chain.recipe, chain.weights, chain.calibration, chain.graph, chain.file))
    assert manifest.precision == "int8"
    figures = optimized(digits_run, target)
    assert figures.chain == chain


def test_pruning_halves_the_arithmetic(digits_run: DigitsRun) -> None:
    effect = next(step for step in digits_run.report.steps if step.kind == "prune").effect
    assert float(effect["macs_before"]) / float(effect["macs_after"]) >= 2.0
    assert float(effect["parameters_after"]) < float(effect["parameters_before"])


@pytest.mark.parametrize("target", RUN_HERE)
def test_accuracy_is_kept_and_the_file_shrinks(digits_run: DigitsRun, target: str) -> None:
    figures = optimized(digits_run, target)
    assert figures.accuracy is not None
    assert figures.accuracy.samples == 596
    assert figures.accuracy.value >= 0.97
    assert figures.size_ratio is not None
    assert figures.size_ratio <= 0.30
    assert figures.ladder is not None
    assert figures.ladder.first_broken is None
    assert [rung.samples for rung in figures.ladder.rungs if rung.outcome == "pass"] == [64] * 4
    first, second = figures.ladder.rungs[:2]
    assert (first.name, second.name) == ("original torch", "float torch")
    assert first.metric is not None
    assert first.metric >= 0.95


def test_figures_name_the_file_that_they_were_measured_on(digits_run: DigitsRun) -> None:
    for target in RUN_HERE:
        figures = optimized(digits_run, target)
        assert figures.accuracy is not None
        assert figures.accuracy.file_sha256 == figures.chain.file
        if figures.latency is not None:
            assert figures.latency.file_sha256 == figures.chain.file


def test_a_board_has_no_latency_from_this_machine(digits_run: DigitsRun) -> None:
    board, host = optimized(digits_run, "raspberry-pi-5"), optimized(digits_run, "host-openvino")
    assert (board.tag, board.latency) == ("emulated", None)
    assert host.tag == "measured"
    assert host.latency is not None
    for target in ("iphone-15", "jetson-orin-nano"):
        figures = optimized(digits_run, target)
        assert (figures.tag, figures.accuracy, figures.latency) == ("deferred", None, None)


def test_the_engines_give_the_same_answers(digits_run: DigitsRun) -> None:
    from sklearn.datasets import load_digits

    images = (load_digits().images * 255 / 16).round().astype(np.uint8)[:200]
    answers = []
    for target in RUN_HERE:
        with load_artifact(digits_run.out / target) as model:
            answers.append([model.predict(image).best for image in images])
    assert float(np.mean(np.array(answers[0]) == np.array(answers[1]))) >= 0.99
    assert float(np.mean(np.array(answers[0]) == np.array(answers[2]))) >= 0.99


def test_a_second_run_does_no_work_and_loads_no_torch(digits_run: DigitsRun, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (digits_run.cache / "steps").rglob("*")}
    words = digits_run.command()[3:]
    code = f"import sys; from edgecv import cli; code = cli.main({words!r}); print('torch' in sys.modules, code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False 0"
    assert {path: path.stat().st_mtime_ns for path in (digits_run.cache / "steps").rglob("*")} == before
    assert all(step.cached for step in read_report(digits_run.out).steps)


@pytest.mark.parametrize(
    ("setting", "first"),
    [
        ("budgets.size_mb=1", None),
        ("measure.fps=20", "measure"),
        ("steps.2.quantize.lr=2e-4", "quantize"),
        ("steps.1.finetune.lr=2e-3", "finetune"),
        ("seed=1", "load"),
    ],
)
def test_a_changed_field_only_redoes_what_depends_on_it(digits_run: DigitsRun, setting: str, first: str | None) -> None:
    kinds = to_do(digits_run, setting)
    assert (kinds[0] if kinds else None) == first
    if first == "measure":
        assert set(kinds) == {"measure"}
    if first == "quantize":
        assert "finetune" not in kinds
        assert "prune" not in kinds


def test_verify_climbs_the_last_rung_and_finds_a_wrong_mean(
    digits_run: DigitsRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for target in RUN_HERE:
        assert cli.main(["verify", str(digits_run.out / target)]) == 0
        shown = capsys.readouterr().out
        assert "pass: this machine against Q/DQ torch" in shown
        assert "pass: weights and operators against as proven" in shown
        assert "pass: decoded results" in shown
    shutil.copytree(digits_run.out / "host-openvino", tmp_path / "copy")
    path = tmp_path / "copy" / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace('"mean": [\n      0.0', '"mean": [\n      0.4'))
    assert cli.main(["verify", str(tmp_path / "copy")]) == 3
    assert "pre-processing: mean: found [0.4], expected [0]" in capsys.readouterr().err


def test_verify_says_what_it_cannot_check_here(digits_run: DigitsRun, capsys: pytest.CaptureFixture[str]) -> None:
    for target in ("iphone-15", "jetson-orin-nano"):
        assert cli.main(["verify", str(digits_run.out / target), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["holds"]
        rungs = {rung["name"]: rung["outcome"] for rung in found["ladder"]["rungs"]}
        assert rungs == {"engine input": "pass", "decoded results": "pass", "labels": "pass"}
        assert found["skipped"]


def test_a_changed_or_cut_file_is_refused(
    digits_run: DigitsRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits_run.out / "raspberry-pi-5", tmp_path / "copy")
    model = tmp_path / "copy" / "model.tflite"
    model.write_bytes(model.read_bytes()[:1000])
    for name in ("verify", "eval", "bench"):
        data = [] if name == "verify" else ["--data", "sklearn-digits:test"]
        assert cli.main([name, str(tmp_path / "copy"), *data]) == 6
        assert "model.tflite has 1000 bytes" in capsys.readouterr().err


def test_a_manifest_that_names_a_file_outside_is_refused(
    digits_run: DigitsRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits_run.out / "raspberry-pi-5", tmp_path / "copy")
    path = tmp_path / "copy" / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace('"model.tflite"', '"../model.tflite"'))
    assert cli.main(["verify", str(tmp_path / "copy")]) == 6
    assert "../model.tflite" in capsys.readouterr().err


def test_build_without_its_toolchain_says_so(digits_run: DigitsRun, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in (digits_run.out / "jetson-orin-nano").iterdir())
    assert cli.main(["build", str(digits_run.out / "jetson-orin-nano")]) == 5
    assert "tensorrt" in capsys.readouterr().err.lower()
    assert sorted(path.name for path in (digits_run.out / "jetson-orin-nano").iterdir()) == before
    assert cli.main(["build", str(digits_run.out / "host-openvino")]) == 2


def test_run_eval_bench_report_and_compare_work_on_it(
    digits_run: DigitsRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2
    from sklearn.datasets import load_digits

    digits = load_digits()
    cv2.imwrite(str(tmp_path / "one.png"), (digits.images[1] * 255 / 16).astype(np.uint8))
    artifact = str(digits_run.out / "host-onnxruntime")
    assert cli.main(["run", artifact, str(tmp_path / "one.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"][0]["label"] == "one"
    assert cli.main(["eval", artifact, "--data", "sklearn-digits:test", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)["value"]
    figures = optimized(digits_run, "host-onnxruntime").accuracy
    assert figures is not None
    assert value == figures.value
    data = ["--data", "sklearn-digits:test"]
    assert cli.main(["bench", artifact, *data, "--protocol", "smoke", "--out", str(tmp_path / "bench")]) in (0, 4)
    assert read_report(tmp_path / "bench").artifacts[0].latency is not None
    capsys.readouterr()
    for form in ("text", "markdown", "html", "junit", "json"):
        assert cli.main(["report", str(digits_run.out), "--format", form]) == 0
        assert "digits" in capsys.readouterr().out
    assert cli.main(["compare", str(digits_run.out), str(digits_run.out)]) == 0
    assert "PASS" in capsys.readouterr().out


def test_a_failing_target_does_not_stop_the_others(digits_run: DigitsRun, tmp_path: Path) -> None:
    (tmp_path / "bad-board.yaml").write_text(
        "target: 1\nname: bad-board\ntitle: A board with a wrong option\nbackend: openvino\narch: aarch64\n"
        "precisions: [int8]\nsources: [made for this test]\nengine_options: {no_such_option: 1}\n",
        encoding="utf-8",
    )
    targets = f"targets=[{tmp_path}/bad-board.yaml, host-onnxruntime]"
    words = digits_run.command("--set", targets, out=tmp_path / "out")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (tmp_path / "out" / "host-onnxruntime" / MANIFEST).is_file()
    assert not (tmp_path / "out" / "bad-board").exists()
    bad = next(item for item in read_report(tmp_path / "out").artifacts if item.target == "bad-board")
    assert "no_such_option" in bad.error
    assert bad.failed_step.startswith("compile")


def test_killed_in_any_step_it_resumes_to_the_same_result(digits_run: DigitsRun, tmp_path: Path) -> None:
    """SIGKILL in the first step of each kind; what was finished stays, and the end is the same."""
    one = ("--target", "host-onnxruntime")
    words = command(digits_run.recipe, tmp_path / "out", tmp_path / "cache", *one)
    plan = subprocess.run([*words, "--dry-run", "--json"], capture_output=True, text=True, check=True)
    steps = {step["kind"]: step["key"] for step in json.loads(plan.stdout)["steps"]}
    store = Store(tmp_path / "cache")
    for kind in ("load", "finetune", "quantize", "compile", "measure"):
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and not store.work(steps[kind]).exists():
            time.sleep(0.002)
        child.kill()
        child.wait()
        assert store.record(steps[kind]) is None or child.returncode == 0
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = read_manifest(digits_run.out / "host-onnxruntime")
    found = read_manifest(tmp_path / "out" / "host-onnxruntime")
    assert found.chain == expected.chain
    assert found.files == expected.files
