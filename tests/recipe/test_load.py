from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecv.core.recipe import CalibrationSpec, Finetune, Prune, Quantize
from edgecv.errors import Problem, RecipeError
from edgecv.recipe.load import load_recipe, recipe_for, to_plain
from edgecv.recipe.typed import validate

Problems = Callable[..., list[Problem]]
Write = Callable[[str], Path]


def test_a_good_recipe_becomes_typed_values(write: Write, good: str) -> None:
    loaded = load_recipe(write(good), env={})
    recipe = loaded.recipe
    assert recipe.name == "small"
    assert recipe.model.input.size == (8, 8)
    assert [type(step) for step in recipe.steps] == [Prune, Finetune, Quantize]
    assert recipe.steps[0] == Prune(importance="taylor", speedup=2.0)
    assert isinstance(recipe.data.calibration, CalibrationSpec)
    assert [target.name for target in loaded.targets] == ["host-onnxruntime", "raspberry-pi-4", "raspberry-pi-5"]
    assert loaded.calibration is None
    assert loaded.base == loaded.path.parent


def test_resolved_values_read_back_as_the_same_recipe(write: Write, good: str) -> None:
    loaded = load_recipe(write(good), env={})
    assert json.loads(json.dumps(loaded.resolved)) == loaded.resolved
    again, found = validate(type(loaded.recipe), loaded.resolved)
    assert found == []
    assert again == loaded.recipe
    assert loaded.resolved["steps"][1]["finetune"]["lr"] == 0.001  # defaults are filled in
    assert to_plain(loaded.recipe) == loaded.resolved


def test_the_hash_follows_values_and_not_places(tmp_path: Path, good: str) -> None:
    hashes = []
    for folder, text in (("a", good), ("b", "# a comment\n" + good), ("c", good + "seed: 1\n")):
        weighted = text.replace("  input:", "  weights: w.safetensors\n  input:")
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.safetensors").write_bytes(b"")
        path = tmp_path / folder / "small.yaml"
        path.write_text(weighted)
        loaded = load_recipe(path, env={})
        assert loaded.recipe.model.weights is not None
        assert loaded.recipe.model.weights.path == str(tmp_path / folder / "w.safetensors")
        assert loaded.resolved["model"]["weights"]["path"] == "w.safetensors"
        hashes.append(loaded.sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_all_problems_come_at_once_with_their_lines(problems: Problems, good: str) -> None:
    text = (
        good.replace("recipe: 1", "recipe: 2")
        .replace("color: gray", "color: grey")
        .replace("kind: classification", "kind: clasification")
        .replace("kind: sklearn-digits, split: test", "kind: imagefolder, path: no/such/folder")
        .replace("speedup: 2.0", "speedup: 0.5")
        .replace("finetune: {epochs: 2}", "finetune: {epoch: 2}")
        .replace("quantize:", "quantise:")
        .replace("raspberry-pi-5", "raspberry-pi5")
        .replace("p95_ms: 5", "p95_ms: fast")
        + "name: again\n"
    )
    found = {(problem.line, problem.where): problem.message for problem in problems(text)}
    expected = {
        (1, "recipe"): "is 2; allowed: 1",
        (5, "model.input.color"): "is 'grey' (did you mean 'gray'?); allowed: rgb, bgr, gray",
        (7, "family.kind"): "is 'clasification' (did you mean 'classification'?)",
        (10, "data.eval.path"): "there is no such folder",
        (14, "steps.0.prune.speedup"): "is 0.5; it must be above 1",
        (15, "steps.1.finetune.epochs"): "is missing; it is required (passes over the training set)",
        (15, "steps.1.finetune.epoch"): "unknown key 'epoch' (did you mean 'epochs'?); allowed: epochs, lr",
        (16, "steps.2.quantise"): "unknown step 'quantise' (did you mean 'quantize'?)",
        (17, "targets.2"): "unknown target 'raspberry-pi5' (did you mean 'raspberry-pi-5'?)",
        (18, "budgets.latency.p95_ms"): "is 'fast'; needed: a number",
        (19, "name"): "first on line 2",
    }
    assert set(found) == set(expected)
    for place, words in expected.items():
        assert words in found[place], place


def test_problems_are_in_the_order_of_the_file(problems: Problems, good: str) -> None:
    found = problems(good.replace("p95_ms: 5", "p95_ms: x").replace("name: small", "name: X"), sets=["seed=x"])
    assert [problem.line for problem in found[:2]] == [2, 18]
    assert found[-1].file == "--set seed=x"


@pytest.mark.parametrize(
    ("old", "new", "where", "words"),
    [
        ("recipe: 1", "recipe: true", "recipe", "allowed: 1"),
        ("recipe: 1\n", "", "recipe", "is missing"),
        ("name: small", "name: Not A Name", "name", "must match"),
        ("name: small", "name: 7", "name", "needed: text; put it in quotes"),
        ("name: small", "name: null", "name", "is null; needed: text"),
        ("size: [8, 8]", "size: [8]", "model.input.size.1", "a list of 2 values: a whole number"),
        ("size: [8, 8]", "size: [8, 8, 8]", "model.input.size", "a list of 2 values"),
        ("size: [8, 8]", "size: [8, 8.5]", "model.input.size.1", "needed: a whole number"),
        ("size: [8, 8]", "size: [8, 0]", "model.input.size", "within 1..16384"),
        ("size: [8, 8]", "size: 8", "model.input.size", "a list of 2 values"),
        ("mean: [0.0]", "mean: [0, 0, 0]", "model.input.mean", "color gray needs 1"),
        ("std: [1.0]", "std: [0]", "model.input.std", "divide by zero"),
        ("std: [1.0]", "std: [.inf]", "model.input.std.0", "not a finite number"),
        ("std: [1.0]", "std: [1.0], range: [1, 1]", "model.input.range", "must differ"),
        ("std: [1.0]", "std: [1.0], pad_value: 300", "model.input.pad_value", "at most 255"),
        ("source: python:edgecv.models.reference:digits_cnn", "source: resnet18", "model.source", "must match"),
        ("python:edgecv.models.reference:digits_cnn", "python:net", "model.source", "python:module:function"),
        ("python:edgecv.models.reference:digits_cnn", "onnx:gone.onnx", "model.source", "no such file"),
        ("  input:", "  weights: gone.pt\n  input:", "model.weights.path", "no such file"),
        ("  input:", "  weights: {key: a}\n  input:", "model.weights", "neither of path and url"),
        ("  input:", "  weights: {path: a, url: 'https://b'}\n  input:", "model.weights", "both of path and url"),
        ("  input:", "  weights: https://x/y.pt\n  input:", "model.weights.url", "needs sha256"),
        ("  input:", "  weights: {url: 'ftp://x', sha256: 1}\n  input:", "model.weights.sha256", "needed: text"),
        ("  input:", f"  weights: {{url: 'ftp://x', sha256: {'a' * 64}}}\n  input:", "model.weights.url", "must start"),
        ("  input:", "  weights: 3\n  input:", "model.weights", "needed: a mapping with path, url"),
        ("labels: [zero", "labels: [0", "family.labels.0", "put it in quotes"),
        ("labels: [zero", "labels: ['', one, zero", "family.labels", "empty name"),
        ("sklearn-digits, split: test", "sklearn-digits, split: dev", "data.eval.split", "train, test, all"),
        ("sklearn-digits, split: test", "sklearn-digits, path: x", "data.eval.path", "takes no path"),
        ("sklearn-digits, split: test", "imagefolder", "data.eval", "needs path"),
        ("sklearn-digits, split: test", "csv, path: small.yaml, split: test", "data.eval.split", "only sklearn-digits"),
        ("sklearn-digits, split: test", "csv, path: '.'", "data.eval.path", "which is a folder; a file is needed"),
        ("sklearn-digits, split: test", "imagefolder, path: '.', root: x", "data.eval.root", "goes only with"),
        ("sklearn-digits, split: test", "imagefolder, path: ' '", "data.eval.path", "is empty"),
        ("sklearn-digits, split: test", "imagefolder, path: '${NOWHERE}/x'", "data.eval.path", "NOWHERE is not set"),
        ("samples: 32", "samples: 0", "data.calibration.samples", "at least 1"),
        ("samples: 32", "sample: 3", "data.calibration.sample", "did you mean 'samples'"),
        ("{source: {kind: sklearn-digits, split: train}, samples: 32}", "7", "data.calibration", "or a mapping with"),
        ("{source: {kind: sklearn-digits, split: train}, samples: 32}", "null", "steps.2.quantize", "ptq needs"),
        ("{source: {kind: sklearn-digits, split: train}, samples: 32}", "x-9", "data.calibration", "no calibration"),
        ("{source: {kind: sklearn-digits, split: train}, samples: 32}", "../x", "data.calibration", "not a calibr"),
        ("{kind: sklearn-digits, split: train}\n", "null\n", "steps.1.finetune", "needs training data"),
        ("{kind: sklearn-digits, split: train}\n", "null\n", "steps.0.prune", "importance taylor needs"),
        ("{kind: sklearn-digits, split: train}\n", "[1]\n", "data.train", "needed: a mapping with kind"),
        ("speedup: 2.0", "speedup: 2.0, ratio: 0.5", "steps.0.prune", "both of speedup and ratio"),
        (", speedup: 2.0", "", "steps.0.prune", "neither of speedup and ratio"),
        ("- finetune: {epochs: 2}", "- finetune", "steps.1", "a step has one key"),
        ("- finetune: {epochs: 2}", "- {}", "steps.1", "an empty mapping"),
        ("- finetune: {epochs: 2}", "- finetune: {epochs: 2}\n    extra: 1", "steps.1", "keys 'finetune', 'extra'"),
        ("- finetune: {epochs: 2}", "- finetune:", "steps.1.finetune", "is null; needed: a mapping"),
        ("epochs: 2", "epochs: 2, distill: {weight: 3}", "steps.1.finetune.distill.weight", "at most 1"),
        ("epochs: 2", "epochs: 2, distill: much", "steps.1.finetune.distill", "a number or a mapping with"),
        ("epochs: 2", "epochs: 2, precision: 32", "steps.1.finetune.precision", "write it in quotes: '32'"),
        ("epochs: 2", "epochs: '2'", "steps.1.finetune.epochs", "is '2'; needed: a whole number"),
        ("{method: ptq}", "{method: ptq}\n  - quantize: {method: fp16}", "steps.3.quantize", "at most"),
        ("  - prune:", "  - quantize: {method: fp16}\n  - prune:", "steps.3.quantize", "at most one"),
        ("- finetune: {epochs: 2}\n  - quantize: {method: ptq}", "- quantize: {method: ptq}\n  - finetune: {epochs: 2}",
         "steps.1.quantize", "must be the last step"),
        ("targets: [host-onnxruntime, ", "targets: [host-onnxruntime, host-onnxruntime, ", "targets.1", "twice"),
        ("targets: [host-onnxruntime, ", "targets: [a/b, ", "targets.0", "not a target name"),
        ("targets: [host-onnxruntime, ", "targets: [gone.yaml, ", "targets.0", "no such file"),
        ("targets: [host-onnxruntime, raspberry-pi-4, raspberry-pi-5]", "targets: []", "targets", "1 or more"),
        ("targets: [host-onnxruntime, raspberry-pi-4, raspberry-pi-5]", "targets: x", "targets", "a list of text"),
        ("metric: top1", "metric: map", "budgets.accuracy.metric", "allowed for classification: top1, top5"),
        ("metric: top1", "metric: top3", "budgets.accuracy.metric", "allowed for classification: top1, top5"),
        ("sklearn-digits, split: test", "coco, path: .", "data.eval.kind", "allowed: imagefolder, csv, sklearn-digits"),
        ("sklearn-digits, split: test", "images, path: .", "data.eval.kind", "is images, which is not for"),
        ("sklearn-digits, split: test", "imagefolder, path: '.', only: x", "data.eval.only",
         "of kind coco, coco-masks, images"),
        ("labels: [zero, one, two, three, four, five, six, seven, eight, nine]", "labels: imagenet1k",
         "family.labels", "did you mean 'imagenet-1k'"),
        ("budgets:", "<<: {seed: 1}\nbudgets:", "<<", "merge keys"),
        ("budgets:", "seed: -1\nbudgets:", "seed", "at least 0"),
        ("budgets:", "budgts: 1\nbudgets:", "budgts", "did you mean 'budgets'"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_at_its_place(
    problems: Problems, good: str, old: str, new: str, where: str, words: str
) -> None:
    assert old in good
    text = good.replace(old, new, 1)
    matching = [problem for problem in problems(text) if problem.where == where and words in problem.message]
    assert matching, [str(problem) for problem in problems(text)]
    assert all(problem.line is not None for problem in matching)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("just words\n", "a recipe is a mapping"),
        ("- a\n- b\n", "a recipe is a mapping"),
        ("{}\n", "is missing"),
        ("\x00", "not YAML"),
        ("recipe: [1\n", "not YAML"),
    ],
)
def test_what_is_no_recipe_at_all(problems: Problems, text: str, words: str) -> None:
    assert words in str(problems(text)[0])


def test_wide_recipes_do_not_hide_behind_top5(problems: Problems, good: str) -> None:
    labels = "[zero, one, two, three, four, five, six, seven, eight, nine]"
    text = good.replace(labels, "[a, b, c]").replace("metric: top1", "metric: top5")
    assert "always right with 3 labels" in problems(text)[0].message


def test_weights_may_be_a_bare_path_or_a_pinned_url(write: Write, good: str) -> None:
    path = write(good.replace("  input:", f"  weights: https://x.org/y.pt#sha256={'a' * 64}\n  input:"))
    weights = load_recipe(path, env={}).recipe.model.weights
    assert weights is not None
    assert (weights.url, weights.sha256, weights.path) == ("https://x.org/y.pt", "a" * 64, None)


def test_onnx_takes_no_other_weights(problems: Problems, good: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    text = good.replace("python:edgecv.models.reference:digits_cnn", "onnx:m.onnx")
    with_weights = text.replace("  input:", "  weights: m.onnx\n  input:")
    assert [problem.where for problem in problems(with_weights)] == ["model.weights"]


def test_an_onnx_path_comes_back_absolute(write: Write, good: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    loaded = load_recipe(write(good.replace("python:edgecv.models.reference:digits_cnn", "onnx:m.onnx")), env={})
    assert loaded.recipe.model.source == f"onnx:{tmp_path / 'm.onnx'}"
    assert loaded.resolved["model"]["source"] == "onnx:m.onnx"


def test_qat_without_calibration_picks_from_train(write: Write, good: str) -> None:
    text = good.replace("method: ptq", "method: qat").replace(
        "  calibration: {source: {kind: sklearn-digits, split: train}, samples: 32}\n", ""
    )
    loaded = load_recipe(write(text), env={})
    assert loaded.recipe.data.train is not None
    assert loaded.recipe.data.calibration == CalibrationSpec(source=loaded.recipe.data.train)


def test_paths_may_start_with_a_variable(write: Write, good: str, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    text = good.replace("{kind: sklearn-digits, split: test}", '{kind: imagefolder, path: "${EDGECV_DATA}/pictures"}')
    loaded = load_recipe(write(text), env={"EDGECV_DATA": str(tmp_path)})
    assert loaded.recipe.data.eval.path == str(tmp_path / "pictures")
    assert loaded.resolved["data"]["eval"]["path"] == "${EDGECV_DATA}/pictures"


def test_files_need_not_exist_where_a_recipe_is_only_listed(write: Write, good: str) -> None:
    text = good.replace("{kind: sklearn-digits, split: test}", '{kind: imagefolder, path: "${NOPE}/x"}')
    loaded = load_recipe(write(text), env={}, check_files=False)
    assert loaded.recipe.data.eval.path == "${NOPE}/x"


def test_a_target_file_of_the_users_own(write: Write, good: str, tmp_path: Path) -> None:
    target = tmp_path / "my-board.yaml"
    target.write_text(
        "target: 1\nname: my-board\ntitle: Mine\nbackend: litert\narch: aarch64\nprecisions: [int8]\nsources: [me]\n"
    )
    path = write(good.replace("targets: [host-onnxruntime, ", "targets: [my-board.yaml, "))
    loaded = load_recipe(path, env={})
    assert loaded.targets[0].title == "Mine"
    assert recipe_for(loaded, "my-board").name == "small"


def test_problems_of_a_target_file_carry_its_own_lines(problems: Problems, good: str, tmp_path: Path) -> None:
    (tmp_path / "my-board.yaml").write_text("target: 1\nname: my-board\nbackend: tensorrtt\n")
    found = problems(good.replace("targets: [host-onnxruntime, ", "targets: [my-board.yaml, "))
    assert {problem.file for problem in found} == {str(tmp_path / "my-board.yaml")}
    assert any(problem.line == 3 and "did you mean 'tensorrt'" in problem.message for problem in found)


def test_two_targets_with_one_name(problems: Problems, good: str, tmp_path: Path) -> None:
    text = "target: 1\nname: twin\ntitle: T\nbackend: null\narch: host\nprecisions: []\nsources: []\n"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twin.yaml").write_text(text.replace("null", "'null'"))
    found = problems(good.replace("targets: [", "targets: [a/twin.yaml, b/twin.yaml, "))
    assert "names must differ" in found[0].message


def test_recipe_for_an_unknown_target(write: Write, good: str) -> None:
    loaded = load_recipe(write(good), env={})
    with pytest.raises(RecipeError, match=r"did you mean 'raspberry-pi-4'"):
        recipe_for(loaded, "raspberry-pi4")


def test_loading_is_fast_and_brings_no_framework(write: Write, good: str) -> None:
    script = (
        "import sys, time, pathlib; from edgecv.recipe.load import load_recipe;"
        "load_recipe(pathlib.Path(sys.argv[1]));"
        "heavy = {'torch', 'onnx', 'timm', 'torchvision', 'onnxruntime', 'cv2', 'sklearn'} & set(sys.modules);"
        "print(heavy or '', time.process_time())"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(write(good))], capture_output=True, text=True, check=True, timeout=60
    )
    assert float(result.stdout) < 1.5  # 0.4 s of processor time on a quiet machine, with Python's own start


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_bent_recipe_raises_nothing_but_recipe_errors(data: st.DataObject, tmp_path: Path, root: Path) -> None:
    text = (root / "recipes/classification/digits.yaml").read_text()
    value = yaml.safe_load(text)
    junk = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.just([]), st.just({}),
        st.just([1]), st.just({"a": 1}), st.sampled_from(["1e5", "../x", "a.yaml", "${HOME}", "https://x", "onnx:a"]),
    )  # fmt: skip
    for _ in range(data.draw(st.integers(1, 4))):
        place: object = value
        while True:
            keys = (
                list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
            )
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            child = place[key]  # type: ignore[index]
            if not isinstance(child, (dict, list)) or not child or data.draw(st.integers(0, 3)) == 0:
                action = data.draw(st.sampled_from(["junk", "drop", "rename"]))
                if action == "junk":
                    place[key] = data.draw(junk)  # type: ignore[index]
                elif action == "drop" or isinstance(place, list):
                    del place[key]  # type: ignore[attr-defined]
                else:
                    place[f"{key}x"] = place.pop(key)  # type: ignore[attr-defined, index]
                break
            place = child
    path = tmp_path / "bent.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    try:
        loaded = load_recipe(path, check_files=data.draw(st.booleans()))
    except RecipeError as error:
        assert error.problems  # noqa: PT017
    else:
        assert dataclasses.asdict(loaded.recipe)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_torn_text_raises_nothing_but_recipe_errors(data: st.DataObject, tmp_path: Path, root: Path) -> None:
    text = (root / "recipes/classification/digits.yaml").read_text()
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 20))
    text = text[:at] + data.draw(st.text(max_size=5)) + text[at + cut :]
    path = tmp_path / "torn.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_recipe(path, sets=data.draw(st.lists(st.text(max_size=12), max_size=2)), check_files=False)
    except RecipeError as error:
        assert str(error)  # noqa: PT017
