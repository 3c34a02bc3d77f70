"""YAML text in and out: YAML 1.2 scalars, no tags, no aliases, no key twice."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cssl_cli.errors import InputError
from cssl_cli.recipe.yaml_text import dump, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("5E4", 5e4),
        ("1.", 1.0),
        (".5", 0.5),
        ("-0.25e+2", -25.0),
        ("1e400", math.inf),
        ("-.inf", -math.inf),
        ("7", 7),
        ("+7", 7),
        ("-7", -7),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("''", ""),
        ("'5'", "5"),
        ("on", "on"),
        ("No", "No"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("~/images", "~/images"),
        ("1e", "1e"),
        (".", "."),
        ("!!str 5", "5"),
        ("[1, [2.0, x], {}]", [1, [2.0, "x"], {}]),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    read = parse(text, where="x").value
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_read() -> None:
    assert math.isnan(parse(".nan", where="x").value)


def test_every_key_is_text() -> None:
    assert parse("{1: a, on: b, null: c, 0.5: d, <<: e}", where="x").value == {
        "1": "a",
        "on": "b",
        "null": "c",
        "0.5": "d",
        "<<": "e",
    }


def test_lines_are_those_of_the_keys() -> None:
    lines = parse("# top\na: 1\nb:\n  c: {d: 2}\n", where="x").lines
    assert lines == {("a",): 2, ("b",): 3, ("b", "c"): 4, ("b", "c", "d"): 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2", "line 2, column 2"),
        ("a: 1\n b: 2", "line 2"),
        ("a: b: c", "line 1, column 5"),
        ("a:\n\t- 1", r"line 2, column 1: found character '\t'"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: \x01", "not allowed"),
        (
            "a: !!python/object/apply:os.system ['true']",
            "line 1: the tag !!python/object/apply:os.system is not allowed",
        ),
        ("a: !custom 1", "the tag !custom is not allowed"),
        ("a: !!timestamp 2001-01-01", "the tag !!timestamp is not allowed"),
        ("!!python/name:os.system : 1", "a key must be text"),
        ("a: &x {b: *x}", "aliases"),
        ("a: &x [1]\nb: 2\nc: *x", "line 3: aliases"),
        ("a: *nothing", "line 1: aliases"),
        ("*a : 1", "line 1: a key must be text"),
        ("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]", "line 3: aliases"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ('a: "\\ud800"', "half of a pair of surrogates"),
        ('"\\ud800": 1', "half of a pair of surrogates"),
        ("a: 1\nb: \0", "line 2: the character '\\x00' is not allowed"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1", "not valid YAML"),
        ("a: 0x" + "f" * 4000, "has more than 64 bits"),
        ("a: 9223372036854775808", "line 1: 9223372036854775808 has more than 64 bits"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
        ("\n".join(" " * depth + "a:" for depth in range(60)), "line 52: more than 50 collections in each other"),
        ("[1, 2]: 3", "a key must be text"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is given twice (first on line 1)"),
        ("a: {b: 1, b: 1}", "the key 'b' is given twice"),
        ("a: " + "9" * 5000, "is not a number that can be read"),
        ("a: !!int x", "'x' is not a number that can be read"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text, where="some.yaml")
    assert message in str(error.value)
    assert error.value.where == "some.yaml"


def test_lists_all_tags_and_duplicates_at_once() -> None:
    with pytest.raises(InputError) as error:
        parse("a: !x 1\nb: 2\nb: 3\nc: !y {}", where="some.yaml")
    assert [line.split(":")[0] for line in error.value.what.splitlines()] == ["line 1", "line 3", "line 4"]


def test_no_tag_runs_code(tmp_path_factory: pytest.TempPathFactory) -> None:
    marker = tmp_path_factory.mktemp("code") / "made"
    with pytest.raises(InputError):
        parse(f"a: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{marker}]]", where="x")
    assert not marker.exists()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text("aeE5-+.:#~ \n\t'\"{[|>é☃\x85", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc~-1.", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1), VALUES, max_size=4))
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    assert parse(dump(value), where="x").value == value


@pytest.mark.parametrize("text", ["5e-4", "on", "1:30", "0o7", "null", "1_000", "~", "true", "=", "a: b", "#x", " x"])
def test_text_that_either_yaml_would_misread_is_quoted(text: str) -> None:
    written = dump({"a": text})
    assert parse(written, where="x").value == {"a": text}
    assert yaml.safe_load(written) == {"a": text}


def test_equal_lists_are_written_out_twice() -> None:
    shared = [1, 2]
    assert parse(dump({"a": shared, "b": shared}), where="x").value == {"a": [1, 2], "b": [1, 2]}


def test_a_long_list_of_faults_is_cut() -> None:
    with pytest.raises(InputError) as error:
        parse("[" + ", ".join(["!x 1"] * 1000) + "]", where="x")
    assert len(error.value.what.splitlines()) == 51
    assert error.value.what.endswith("and 950 more")
