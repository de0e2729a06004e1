from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.errors import RecipeError
from edgecv.recipe.yaml_lines import MAX_ALIAS_VALUES, MAX_DEPTH, dotted, parse_yaml, plain_value, read_yaml, to_yaml


def refused(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, file="f.yaml")
    return caught.value


def test_values_and_the_line_of_each() -> None:
    document = parse_yaml("a: 1\nb:\n  - x\n  - {c: 2.5,\n     d: null}\n", file="f.yaml")
    assert document.value == {"a": 1, "b": ["x", {"c": 2.5, "d": None}]}
    assert document.line(("a",)) == 1
    assert document.line(("b",)) == 2
    assert document.line(("b", 1, "d")) == 5
    assert document.line(("b", 0)) == 3
    assert document.line(("b", 7, "nothing")) == 2  # the nearest value around it
    assert document.line(("z",)) == 1


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-7", -7),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
    ],
)
def test_plain_words_follow_yaml_1_2(word: str, value: object) -> None:
    assert plain_value(word) == (value, None)


@pytest.mark.parametrize("word", [".inf", "-.inf", ".nan", "9" * 30, "1" + "0" * 5000, "1e999", str(2**63)])
def test_numbers_that_no_field_can_hold_are_refused(word: str) -> None:
    assert plain_value(word)[1] is not None


def test_quoted_text_stays_text() -> None:
    assert parse_yaml("a: '1'\nb: \"true\"\n", file="f").value == {"a": "1", "b": "true"}


def test_a_repeated_key_names_both_lines() -> None:
    document = parse_yaml("a: 1\nb: 2\na: {x: 3}\n", file="f.yaml")
    assert document.value == {"a": 1, "b": 2}
    (problem,) = document.problems
    assert str(problem) == "f.yaml:3: a: the key 'a' stands here again (first on line 1); remove one of the two"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "empty"),
        ("# only a comment\n", None, "empty"),
        ("a: [1, 2\nb: 3\n", 2, "not YAML"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: *b\n", 1, "alias"),
        ("a: &b [*b]\n", 1, "alias"),
        ("[1, 2]: 3\n", 1, "key"),
        ("? {a: 1}\n: 2\n", 1, "key"),
        ("a: &k x\n*k : 2\n", 2, "key"),
        ("!!str a: 1\n", 1, "key"),
        ("\x00\x01", 1, "not YAML"),
        ("a: \x07\n", 1, "not YAML"),
        ("}{", 1, "not YAML"),
    ],
)
def test_text_that_is_not_a_recipe_of_any_kind(text: str, line: int | None, words: str) -> None:
    problem = refused(text).problems[-1]
    assert words in problem.message
    assert problem.line == line


def test_tags_are_refused_and_make_no_object() -> None:
    text = "a: !!python/object/apply:os.system ['false']\nb: !thing 3\n"
    document = parse_yaml(text, file="f.yaml")
    assert [problem.line for problem in document.problems] == [1, 2]
    assert all("tag" in problem.message for problem in document.problems)
    assert document.value["a"] == ["false"]


def test_an_alias_repeats_its_values_and_copies_them() -> None:
    document = parse_yaml("a: &x {k: [1]}\nb: *x\n", file="f.yaml")
    assert document.value == {"a": {"k": [1]}, "b": {"k": [1]}}
    assert document.value["a"]["k"] is not document.value["b"]["k"]


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 12)]
    problem = refused("\n".join(rows)).problems[-1]
    assert f"{MAX_ALIAS_VALUES:,}" in problem.message
    assert problem.line == 5


@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 50_000, "- " * 5_000, "a: " + "[" * MAX_DEPTH])
def test_deep_nesting_is_refused_without_a_crash(text: str) -> None:
    assert refused(text).problems


def test_aliases_cannot_nest_deeper_than_text() -> None:
    rows = ["a0: &a0 [[[[[[[[1]]]]]]]]"] + [f"a{n}: &a{n} [[[[[[[[*a{n - 1}]]]]]]]]" for n in range(1, 8)]
    assert "deep" in refused("\n".join(rows)).problems[-1].message


def test_half_a_surrogate_pair_is_refused() -> None:
    assert "Unicode" in str(refused("a: \ud800"))


def test_escaped_nul_in_text_is_a_problem() -> None:
    document = parse_yaml('a: "x\\0y"\n', file="f.yaml")
    assert "NUL" in document.problems[0].message


def test_files_that_are_no_files(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, words in ((tmp_path, "folder"), (tmp_path / "none.yaml", "no such file"), (fifo, "regular")):
        with pytest.raises(RecipeError, match=words):
            read_yaml(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        read_yaml(Path("a\0b"))


def test_a_50_mb_file_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    with path.open("wb") as stream:
        stream.truncate(50_000_000)
    with pytest.raises(RecipeError, match="50,000,000 bytes"):
        read_yaml(path)


def test_bytes_that_are_not_utf_8_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(RecipeError, match="0xe9 is not UTF-8") as caught:
        read_yaml(path)
    assert caught.value.problems[0].line == 2


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(path).value == {"a": 1, "b": 2}


def test_dotted_paths_read_as_after_set() -> None:
    assert dotted(("steps", 1, "finetune")) == "steps.1.finetune"


def test_written_text_that_pyyaml_would_not_quote_comes_back_as_text() -> None:
    value = {"id": "1e5", "octal": "0o17", "word": "no", "number": 3, "hash": "1" * 63 + "e"}
    assert parse_yaml(to_yaml(value), file="f").value == value


_text = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff\ufffe\uffff"), max_size=8)
_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)


@given(_plain)
def test_any_plain_value_survives_writing_and_reading(value: Any) -> None:
    assert parse_yaml(to_yaml(value), file="f").value == value


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text, file="f")
    except RecipeError as error:
        assert error.problems  # noqa: PT017
