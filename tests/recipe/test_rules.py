from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest

from edgecv import families
from edgecv.core.kinds import DATA_KINDS, FAMILY_KINDS, DataKind, FamilyKind
from edgecv.core.recipe import AccuracyBudget, DataSpec, Finetune, Quantize
from edgecv.recipe.rules import broken_rules, data_problems, typed_steps, with_defaults


@pytest.mark.parametrize("plain", [{}, {"model": 3, "data": [], "steps": {}, "targets": None, "family": "x"}])
def test_sections_that_are_missing_or_wrong_are_passed_over(plain: dict[str, Any]) -> None:
    assert broken_rules(plain) == []


def test_only_sound_steps_are_typed() -> None:
    steps = [{"finetune": {"epochs": 3}}, {"prune": {"ratio": 7}}, "x", {"a": 1}, {"quantize": {"method": "qat"}}]
    assert typed_steps(steps) == [
        (("steps", 0, "finetune"), Finetune(epochs=3)),
        (("steps", 4, "quantize"), Quantize("qat")),
    ]
    assert typed_steps(None) == []


@pytest.mark.parametrize(
    ("spec", "places"),
    [
        (DataSpec("sklearn-digits", split="test"), []),
        (DataSpec("imagefolder", path="x"), []),
        (DataSpec("csv", path="x.csv", root="y"), []),
        (DataSpec("sklearn-digits", path="x", root="y"), [("path",), ("root",)]),
        (DataSpec("imagefolder", split="train", root="y"), [(), ("split",), ("root",)]),
        (DataSpec("csv"), [()]),
        (DataSpec("coco", path="x.json", root="y", only="val"), []),
        (DataSpec("images", path="x", only="*.png"), []),
        (DataSpec("images", root="y", split="test"), [(), ("split",), ("root",)]),
        (DataSpec("csv", path="x.csv", only="a"), [("only",)]),
    ],
)
def test_keys_that_go_with_a_kind_of_data(spec: DataSpec, places: list[tuple[str, ...]]) -> None:
    assert [where for where, _ in data_problems(spec)] == places


def test_only_qat_without_calibration_gets_a_default() -> None:
    train = {"kind": "sklearn-digits", "split": "train"}
    qat = {"data": {"train": train}, "steps": [{"quantize": {"method": "qat"}}]}
    picked = with_defaults(qat)["data"]["calibration"]
    assert picked == {"source": train, "samples": 128, "select": "stratified"}
    assert "calibration" not in qat["data"]
    for plain in (
        {**qat, "steps": [{"quantize": {"method": "ptq"}}]},
        {**qat, "data": {"train": train, "calibration": "x"}},
        {**qat, "data": {"train": 3}},
        {"steps": qat["steps"]},
    ):
        assert with_defaults(plain) == plain


@pytest.mark.parametrize("source", ["python:f", "python::f", "python:m:"])
def test_python_sources_name_a_function(source: str) -> None:
    (found,) = broken_rules({"model": {"source": source}})
    assert found[0] == ("model", "source")
    assert broken_rules({"model": {"source": "python:a.b:c"}}) == []


def test_nothing_is_chosen_on_the_pictures_that_prove_it() -> None:
    spec = {"kind": "coco", "path": "x.json"}
    ((where, message),) = broken_rules({"data": {"eval": spec, "validation": {**spec}}})
    assert where == ("data", "validation")
    assert message.startswith("is the evaluation set")
    assert broken_rules({"data": {"eval": spec, "validation": {**spec, "path": "y.json"}}}) == []


def test_pictures_without_labels_need_a_step_that_a_teacher_watches() -> None:
    digits = {"kind": "sklearn-digits"}
    data = {"unlabelled": {"kind": "images", "path": "more"}, "train": digits, "calibration": {"source": digits}}
    family = {"kind": "classification", "labels": ["a", "b"]}
    given: dict[str, Any] = {"family": family, "data": data}
    tuned = {"finetune": {"epochs": 2, "distill": 0.5}}
    for steps in (
        [tuned],
        [{"quantize": {"method": "qat"}}],
        [{"finetune": {"epochs": 1, "distill": {"weight": 0.2}}}],
        [{"quantize": {"method": "ptq", "repair": "full"}}],
    ):
        assert broken_rules({**given, "steps": steps}) == []
    for steps in ([{"finetune": {"epochs": 2}}], [{"quantize": {"method": "ptq"}}]):
        ((where, message),) = broken_rules({**given, "steps": steps})
        assert where == ("data", "unlabelled")
        assert message.startswith("is never looked at")
    crop = {"unlabelled": {**data["unlabelled"], "crop": 0.5}}
    assert [where for where, _ in broken_rules({**given, "data": {**data, **crop}, "steps": [tuned]})] == [
        ("data", "unlabelled", "crop")
    ]


def test_pieces_are_cut_for_a_teacher_only() -> None:
    digits = {"kind": "sklearn-digits"}
    pieces = {"kind": "images", "path": "more", "pieces": 8}
    given: dict[str, Any] = {
        "family": {"kind": "classification", "labels": ["a", "b"]},
        "steps": [{"finetune": {"epochs": 2, "distill": 1.0}}],
    }
    known = {"train": digits, "calibration": {"source": digits}}
    assert broken_rules({**given, "data": {**known, "unlabelled": pieces}}) == []
    for place in ({"train": pieces}, {"calibration": {"source": pieces}}):
        ((where, message),) = broken_rules({**given, "data": {**known, **place}})
        assert where[-1] == "pieces"
        assert message == "is 8; pieces of pictures are cut in data.unlabelled only"
    ((where, message),) = broken_rules({**given, "data": {**known, "unlabelled": {**digits, "pieces": 8}}})
    assert where == ("data", "unlabelled", "pieces")
    assert message == "is 8; it goes only with data of kind images, video-frames"


DETECTION: dict[str, Any] = {
    "family": {"kind": "detection", "labels": ["a", "b"]},
    "data": {"eval": {"kind": "coco", "path": "x.json"}},
}


def test_metrics_are_those_of_the_family() -> None:
    """The recipe's type allows every family's metrics, and the rule only its own."""
    assert {kind: family.METRICS for kind, family in families.FAMILIES.items()} == {
        kind: facts.metrics for kind, facts in FAMILY_KINDS.items()
    }
    assert get_args(FamilyKind) == tuple(FAMILY_KINDS)
    assert get_args(DataKind) == tuple(DATA_KINDS)
    known = {metric for family in families.FAMILIES.values() for metric in family.METRICS}
    assert known == set(get_args(get_type_hints(AccuracyBudget)["metric"]))
    for kind, family in families.FAMILIES.items():
        for metric in known:
            plain = {"family": {"kind": kind, "labels": ["x"] * 9}, "budgets": {"accuracy": {"metric": metric}}}
            found = broken_rules(plain)
            assert (found == []) == (metric in family.METRICS)
            assert all(f"allowed for {kind}: {', '.join(family.METRICS)}" in message for _, message in found)


@pytest.mark.parametrize(
    ("metric", "bound", "words"),
    [
        ("abs_rel", "min", "abs_rel is an error, of which less is better: set max instead"),
        ("delta1", "max", "delta1 is better the higher it is: set min instead"),
        ("abs_rel", "max", ""),
        ("delta1", "min", ""),
    ],
)
def test_errors_have_a_highest_value_and_the_others_a_lowest(metric: str, bound: str, words: str) -> None:
    plain = {"family": {"kind": "depth"}, "budgets": {"accuracy": {"metric": metric, bound: 0.2}}}
    expected = [(("budgets", "accuracy", bound), f"is 0.2; {words}")] if words else []
    assert [item for item in broken_rules(plain) if item[0][0] == "budgets"] == expected
    above_one = {"family": {"kind": "depth"}, "budgets": {"accuracy": {"metric": metric, "max_drop": 2}}}
    assert any("within 0..1" in message for _, message in broken_rules(above_one)) == (metric == "delta1")


def test_a_budget_without_a_metric_has_the_familys_first() -> None:
    plain = {**DETECTION, "budgets": {"accuracy": {"max_drop": 0.1}}}
    assert with_defaults(plain)["budgets"]["accuracy"] == {"max_drop": 0.1, "metric": "ap"}
    named = {**DETECTION, "budgets": {"accuracy": {"metric": "ap50"}}}
    assert with_defaults(named) == named


def test_detection_takes_boxes_and_calibrates_without() -> None:
    assert broken_rules(DETECTION) == []
    (found,) = broken_rules({**DETECTION, "data": {"eval": {"kind": "imagefolder", "path": "x"}}})
    allowed = "coco, yolo, voc, kitti, mot, scenes-boxes"
    assert found == (("data", "eval", "kind"), f"is imagefolder, which is not for detection here; allowed: {allowed}")
    source = {"kind": "images", "path": "x"}
    data = {**DETECTION["data"], "calibration": {"source": source}}
    filled = with_defaults({**DETECTION, "data": data})
    assert filled["data"]["calibration"] == {"source": source, "select": "random"}
    assert broken_rules(filled) == []
    data["calibration"] = {"source": source, "select": "stratified"}
    ((where, message),) = broken_rules({**DETECTION, "data": data})
    assert where == ("data", "calibration", "select")
    assert "has no classes to pick by; use random or k-center" in message


def test_no_epochs_need_no_training_data() -> None:
    assert broken_rules({"steps": [{"finetune": {"epochs": 0}}]}) == []
    assert broken_rules({"steps": [{"finetune": {"epochs": 1}}]}) != []


@pytest.mark.parametrize(
    ("crop", "resize", "words"),
    [
        (0.75, "stretch", []),
        (1.0, "letterbox", []),
        (1.0, "stretch", ["is 1; the input of 128 x 96 pixels needs 0.75"]),
    ],
)
def test_persons_are_cut_out_in_the_shape_of_the_input(crop: float, resize: str, words: list[str]) -> None:
    spec = {"kind": "scenes-keypoints", "crop": crop}
    plain = {"model": {"input": {"size": [128, 96], "resize": resize}}, "data": {"eval": spec, "train": spec}}
    found = [(where, message) for where, message in broken_rules(plain) if where[-1] == "crop"]
    assert [message.split(", or")[0] for _, message in found] == words * 2
    assert {where for where, _ in found} == ({("data", "eval", "crop"), ("data", "train", "crop")} if words else set())


def test_only_keypoints_are_cut_out() -> None:
    assert [where for where, _ in data_problems(DataSpec("coco", path="x.json", crop=0.75))] == [("crop",)]


def test_a_network_that_streams_takes_what_its_two_forms_can() -> None:
    def found(source: str = "python:nets:stream", layout: str = "stacked", **quantize: str) -> list[str]:
        clip = {"frames": 8, "fps": 8.0, "stream": True, "layout": layout}
        model = {"source": source, "input": {"size": [8, 8], "clip": clip}}
        plain = {"model": model, "family": {"kind": "video"}, "steps": [{"quantize": quantize}]}
        return [message for where, message in broken_rules(plain) if "stream" in f"{where} {message}"]

    assert (
        found(method="ptq") == found(method="fp16") == found(method="qat") == found(method="ptq", repair="full") == []
    )
    assert "build the network in python:" in found("onnx:net.onnx", method="ptq")[0]
    assert "leave layout out" in found(layout="TCHW", method="ptq")[0]


def test_rows_of_numbers_are_for_imported_networks() -> None:
    contract = {"size": [1, 42], "vector": True, "mean": [0.0], "std": [1.0]}
    ((where, message),) = broken_rules({"model": {"input": contract}})
    assert where == ("model", "input", "vector")
    assert "edgecv import --vector and edgecv eval" in message
    plain = {"family": {"kind": "classification"}, "data": {"eval": {"kind": "vectors", "path": "x.csv"}}}
    ((where, message),) = broken_rules(plain)
    assert where == ("data", "eval", "kind")
    assert message.startswith("is vectors, which is not for classification here")


def test_embeddings_learn_from_identities() -> None:
    data = {name: {"kind": "identities", "path": "x"} for name in ("eval", "train")}
    plain = {"family": {"kind": "embedding", "labels": ["x"]}, "data": data, "steps": [{"finetune": {"epochs": 1}}]}
    assert broken_rules(plain) == []
    data["eval"] = {"kind": "identities-csv", "path": "x.csv", "root": "pictures"}
    assert broken_rules(plain) == []
    ((where, _),) = broken_rules({**plain, "budgets": {"accuracy": {"metric": "top1"}}})
    assert where == ("budgets", "accuracy", "metric")


def test_clips_are_for_networks_that_take_them() -> None:
    def found(kind: str, **more: object) -> list[str]:
        plain = {"model": {"input": {"size": [8, 8], **more}}, "family": {"kind": kind, "labels": ["a", "b"]}}
        return [message for where, message in broken_rules(plain) if where == ("model", "input", "clip")]

    clip = {"frames": 8, "fps": 8.0}
    assert found("video", clip=clip) == found("classification") == []
    assert "video needs the frames" in found("video")[0]
    assert "classification looks at one picture" in found("classification", clip=clip)[0]
