"""The rules by which one mapping changes another, and the overrides of the command line."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cssl_cli.errors import InputError
from cssl_cli.host.paths import is_override
from cssl_cli.recipe.merge import merge, parse_overrides

BASE = {
    "name": "base",
    "augment": {"crop": {"scale": [0.1, 1.0]}, "blur": {"p": 0.5, "sigma": [0.1, 2.0]}},
    "method": {"name": "simclr", "temperature": 0.2},
    "train": {"epochs": 800, "batch_size": 512},
}


@pytest.mark.parametrize(
    ("patch", "changed"),
    [
        ({}, {}),
        ({"name": "child"}, {"name": "child"}),
        ({"method": {"temperature": 0.5}}, {"method": {"name": "simclr", "temperature": 0.5}}),
        ({"method": {"name": "simclr", "projector": [8]}}, {"method": {**BASE["method"], "projector": [8]}}),  # type: ignore[dict-item]
        ({"method": {"name": "barlow_twins"}}, {"method": {"name": "barlow_twins"}}),
        ({"augment": {"crop": {"scale": [0.5]}}}, {"augment": {**BASE["augment"], "crop": {"scale": [0.5]}}}),  # type: ignore[dict-item]
        ({"augment": {"blur": None}}, {"augment": {**BASE["augment"], "blur": None}}),  # type: ignore[dict-item]
        ({"augment": None}, {"augment": None}),
        ({"train": {"steps": 5}}, {"train": {"batch_size": 512, "steps": 5}}),
        ({"train": {"steps": None}}, {"train": {"epochs": 800, "batch_size": 512, "steps": None}}),
        ({"train": {"steps": 5, "epochs": 5}}, {"train": {"batch_size": 512, "steps": 5, "epochs": 5}}),
        ({"train": {"batch_size": 8}}, {"train": {"epochs": 800, "batch_size": 8}}),
        ({"probe": {"knn_k": 3}}, {"probe": {"knn_k": 3}}),
    ],
)
def test_merge(patch: dict[str, object], changed: dict[str, object]) -> None:
    before = copy.deepcopy((BASE, patch))
    assert merge(BASE, patch) == {**BASE, **changed}
    assert before == (BASE, patch)


def test_a_deleted_block_comes_back_without_what_it_held() -> None:
    deleted = merge(BASE, {"augment": {"blur": None}})
    assert merge(deleted, {"augment": {"blur": {"p": 1}}})["augment"]["blur"] == {"p": 1}


def test_a_base_without_a_name_is_merged_with_a_patch_that_has_one() -> None:
    assert merge({"method": {"temperature": 1}}, {"method": {"name": "simclr"}}) == {
        "method": {"temperature": 1, "name": "simclr"}
    }


PLAIN = st.recursive(
    st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), PLAIN, max_size=3)


@given(MAPPINGS, MAPPINGS)
def test_merge_is_idempotent_and_has_the_empty_patch_as_identity(
    base: dict[str, object], patch: dict[str, object]
) -> None:
    once = merge(base, patch)
    assert merge(once, patch) == once
    assert merge(base, {}) == base
    assert merge({}, patch) == patch


def leaves(value: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {leaf: item for key, inner in value.items() for leaf, item in leaves(inner, (*path, key)).items()}


@given(MAPPINGS, MAPPINGS)
def test_every_leaf_of_a_patch_is_in_the_result(base: dict[str, object], patch: dict[str, object]) -> None:
    merged: object = merge(base, patch)
    for path, value in leaves(patch).items():
        found = merged
        for key in path:
            assert isinstance(found, dict)
            found = found[key]
        # An empty block adds nothing to the one that is there.
        assert found == value or (value == {} and isinstance(found, dict))


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("optim.lr=5e-4", ("optim", "lr"), 5e-4),
        ("a=b=c", ("a",), "b=c"),
        ("a=[1, 2.0]", ("a",), [1, 2.0]),
        ("a.b={x: 1}", ("a", "b"), {"x": 1}),
        ("a=null", ("a",), None),
        ("~a.b", ("a", "b"), None),
        ("a='1'", ("a",), "1"),
        ("data.root=/x/y=z/~", ("data", "root"), "/x/y=z/~"),
        ("data.root=~/images", ("data", "root"), "~/images"),
    ],
)
def test_override(text: str, path: tuple[str, ...], value: object) -> None:
    (override,) = parse_overrides([text])
    assert (override.path, override.value) == (path, value)
    nested = override.patch
    for key in path[:-1]:
        nested = nested[key]
    assert nested == {path[-1]: value}


@pytest.mark.parametrize(
    "value",
    [
        *("/x/set #2", "#x", "5 # x", "a: b", "- x", "? x", "--- 1", "%YAML 1.1", "'a' b", "'a", "[1", "[1, 2] x"),
        *(
            "[1]#x",
            "[1, # x\n 2]",
            "{a: 1} # x",
            "[&a 1, 2]",
            "{a: &a 1, b: *a}",
            "&a x",
            "*a",
            "!x y",
            "!!int 3",
            "| x",
        ),
        *("a\nb", "'a\nb'", " /x ", "@x", "`x`", '"\\UFFFFFFFF"', "{{scratch}/x", "a\tb", "\x07", "~/images"),
    ],
)
def test_a_value_that_is_no_yaml_as_a_whole_is_taken_as_given(value: str) -> None:
    (override,) = parse_overrides([f"data.root={value}"])
    assert override.value == value


@given(st.text(min_size=1).filter(str.strip))
def test_an_override_is_its_text_or_all_of_it_is_yaml(value: str) -> None:
    try:
        (override,) = parse_overrides([f"a={value}"])
    except InputError:
        return
    if override.value != value:
        assert value.strip()[0] in "[{'\"" or not isinstance(override.value, str)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        *[(text, True) for text in ("a=1", "~a.b", "a..b=1", "lr=0.01/RUN", "data.root=/x=y", "=")],
        *[(text, False) for text in ("out/lr=0.01/RUN", "./lr=1", "~/runs/x", "~me/x", "/a=b", "simclr-shapes")],
    ],
)
def test_paths_are_told_from_overrides(text: str, is_one: bool) -> None:
    assert is_override(text) == is_one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "Write key.sub=value"),
        ("", "Write key.sub=value"),
        ("=3", "'' is not a key"),
        ("a..b=3", "'a..b' is not a key"),
        (".a=3", "'.a' is not a key"),
        ("a b=3", "'a b' is not a key"),
        ("~", "'' is not a key"),
        ("~a=3", "a deletion takes no value"),
        ("a=", "a=null"),
        ("a= ", "a=null"),
        ("a=[!!python/name:os.system '']", "the tag !!python/name:os.system is not allowed"),
        ("a=" + "[" * 100_000, "nested too deeply"),
        ("a=0x" + "f" * 4000, "has more than 64 bits"),
        ("a=" + "9" * 5000, "is not a number that can be read"),
        ("a=\udcff", "holds bytes that are no UTF-8"),
        ("a" + ".a" * 30 + "=1", "is not a key"),
        ("a={b: 1, b: 2}", "given twice"),
    ],
)
def test_malformed_override(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_overrides(["x=1", text])
    assert message in str(error.value)
    assert len(text) > 200 or error.value.where == f"override {text!r}"
    assert len(str(error.value)) < 1000


def test_overrides_of_a_name_come_first() -> None:
    texts = ["name=x", "method.temperature=1", "~augment", "method.name=barlow_twins", "augment.crop={}"]
    assert [override.text for override in parse_overrides(texts)] == [
        "method.name=barlow_twins",
        "name=x",
        "method.temperature=1",
        "~augment",
        "augment.crop={}",
    ]


def test_two_durations_exclude_each_other() -> None:
    with pytest.raises(InputError, match="exclude each other"):
        parse_overrides(["train.epochs=3", "train.steps=5"])
    assert len(parse_overrides(["train.epochs=null", "train.steps=5"])) == 2
