"""What a sweep file says of its rows, published values and claims: read, or refused with line and nearest name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from cssl_cli.errors import InputError
from cssl_cli.recipe import load_recipe
from cssl_cli.sweep.claims import axis_of, faults_of, groups_of, is_negative_control
from cssl_cli.sweep.file import Claim, Reference
from cssl_cli.sweep.sweep import load_sweep

HEAD = """\
name: s
base: simclr-cifar10
axes:
  method: {simclr: {}, moco: {method: {name: moco}}}
  augment:
    abc: {augment: {flip: null, jitter: null}}
    ab: {augment: {flip: null, jitter: null, gray: null}}
    a: {augment: {flip: null, jitter: null, gray: null, blur: null}}
"""
REFERENCE = """\
reference:
  source: "a paper, Table 1"
  accuracy: knn
  selection: best_epoch
  protocol: {encoder.name: resnet18, train.epochs: 800, data.name: cifar10, optim.momentum: 0.9}
  seeds: 3
  values:
    simclr-abc: 83.5
    simclr-a: 62.74
    moco-a: 75
"""
QUANTITIES = ("linear", "error_linear", "alignment", "one_minus_sigma_pixels")
ROWS = {f"{m}-{a}": {"method": m, "augment": a} for m in ("simclr", "moco") for a in ("abc", "ab", "a")}
Load = Callable[..., object]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, quantities: Sequence[str] | None = QUANTITIES) -> object:
        (tmp_path / "sweep.yaml").write_text(text)
        return load_sweep(str(tmp_path / "sweep.yaml"), quantities=quantities)

    return load


def refusal(load: Load, text: str) -> str:
    with pytest.raises(InputError) as error:
        load(text)
    assert error.value.exit_code == 2
    assert error.value.where is not None
    assert error.value.where.endswith("sweep.yaml")
    return error.value.what


# ----------------------------------------------------------------------------------------------------------- reference
def test_a_reference(load: Load) -> None:
    reference = load(HEAD + REFERENCE).reference
    assert reference == Reference(
        source="a paper, Table 1",
        accuracy="knn",
        selection="best_epoch",
        protocol={"encoder.name": "resnet18", "train.epochs": 800, "data.name": "cifar10", "optim.momentum": 0.9},
        seeds=3,
        values={"simclr-abc": 83.5, "simclr-a": 62.74, "moco-a": 75},
    )
    assert load(HEAD).reference is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "accuracy: knn",
            "accuracy: kn",
            'reference.accuracy (line 11) is "kn"; must be linear or knn or nearest_center',
        ),
        ("selection: best_epoch", "selection: best", 'is "best"; must be best_epoch or last_epoch'),
        ("seeds: 3", "seeds: 0", "reference.seeds (line 14) is 0; must be a whole number >= 1"),
        ("  seeds: 3", "  sources: 3", "reference.sources (line 14) is not a field; did you mean reference.source?"),
        ("  accuracy: knn\n", "", "reference.accuracy (line 9) is required"),
        ("simclr-a: 62.74", "simclr-b: 62.74", "reference.values.simclr-b (line 17) is no row; did you mean simclr-a"),
        (
            "simclr-a: 62.74",
            "simclr-a: 0.6274e3",
            "values.simclr-a (line 17) is 627.4; must be an accuracy in per cent",
        ),
        (
            "simclr-abc: 83.5\n    simclr-a: 62.74\n    moco-a: 75",
            "simclr-abc: 0.835\n    moco-a: 1",
            "reference.values (line 15) are all at most 1; give them in per cent",
        ),
        ("simclr-a: 62.74", "simclr-a: '62'", 'values.simclr-a (line 17) is "62"; must be'),
        ("simclr-a: 62.74", "simclr-a: true", "values.simclr-a (line 17) is true; must be"),
        ("simclr-a: 62.74", "simclr-a: 0", "values.simclr-a (line 17) is 0; must be"),
        (
            "train.epochs: 800",
            "train.epoch: 800",
            "protocol.train.epoch (line 13) is not a field of a recipe; did you mean train.epochs?",
        ),
        (
            "train.epochs: 800",
            "epochs: 800",
            "protocol.epochs (line 13) is not a field of a recipe; did you mean train.epochs?",
        ),
        (
            "train.epochs: 800",
            "train: {epochs: 800}",
            "protocol.train (line 13) is a block; give its fields: train.epochs,",
        ),
        (
            "train.epochs: 800",
            "train.epochs: long",
            'protocol.train.epochs (line 13) is "long"; must be a whole number',
        ),
        ("encoder.name: resnet18", "encoder.name: resnet17", 'encoder.name (line 13) is "resnet17"; must be one of'),
        ("optim.momentum: 0.9", "method.queue: 0", "protocol.method.queue (line 13) is 0; must be a whole number >= 1"),
    ],
)
def test_bad_reference(load: Load, old: str, new: str, message: str) -> None:
    assert old in REFERENCE
    assert message in refusal(load, HEAD + REFERENCE.replace(old, new))


@pytest.mark.parametrize(
    "protocol",
    [
        "{method.temperature: 0.5}",  # a field of some members
        "{optim.name: adamw, optim.betas: [0.5, 0.9]}",  # a field of what they used in place of ours
        "{optim.betas: [0.5, 0.9]}",  # a field that none of ours has
        "{data.limit: null}",
        "{}",
    ],
)
def test_a_protocol_may_be_of_other_blocks_than_ours(load: Load, protocol: str) -> None:
    line = next(line for line in REFERENCE.splitlines() if "protocol" in line)
    assert load(HEAD + REFERENCE.replace(line, f"  protocol: {protocol}")).reference is not None


def test_all_faults_of_what_is_said_are_listed_at_once(load: Load) -> None:
    claims = "claims:\n  - {says: x, rows: simclr-b, smallest: linear}\n"
    message = refusal(load, HEAD + REFERENCE.replace("moco-a:", "moco-b:").replace("epochs:", "epoch:") + claims)
    assert message.splitlines()[0] == "3 faults"


# -------------------------------------------------------------------------------------------------------------- claims
def test_claims(load: Load) -> None:
    text = """\
claims:
  - {says: a is far, rows: a, smallest: one_minus_sigma_pixels, largest: [error_linear], within: method}
  - says: richer is better
    order: [a, ab, abc]
    by: linear
    increasing: false
    within: method
"""
    first, second = load(HEAD + text).claims
    assert (first.rows, first.smallest, first.largest) == (("a",), ("one_minus_sigma_pixels",), ("error_linear",))
    assert (second.order, second.by, second.increasing) == (("a", "ab", "abc"), ("linear",), False)
    assert load(HEAD).claims == ()


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("{rows: simclr-a, smallest: linear}", "claims[0].says (line 10) is required"),
        ("{says: '', rows: simclr-a, smallest: linear}", 'claims[0].says (line 10) is ""; must be text'),
        ("{says: x, row: simclr-a, smallest: linear}", "claims[0].row (line 10) is not a field; did you mean rows?"),
        ("{says: x, rows: simclr-a}", "claims[0] (line 10) must have either rows with smallest or largest, or order"),
        ("{says: x, rows: simclr-a, by: linear}", "claims[0] (line 10) must have either"),
        ("{says: x, order: [simclr-a, moco-a]}", "claims[0] (line 10) must have either"),
        ("{says: x, order: [simclr-a, moco-a], by: linear, rows: moco-a, smallest: linear}", "must have either"),
        ("{says: x, rows: moco-a, smallest: linear, increasing: true}", "must have either"),
        (
            "{says: x, order: simclr-a, by: linear}",
            'claims[0].order (line 10) is "simclr-a"; must be at least two rows',
        ),
        ("{says: x, order: [a, a], by: linear, within: method}", "claims[0].order (line 10) is"),
        ("{says: x, rows: [], smallest: linear}", "claims[0].rows (line 10) is []; must be a row or a list of rows"),
        (
            "{says: x, rows: simclr-b, smallest: linear}",
            "claims[0].rows (line 10) names 'simclr-b', which is no row; did you mean simclr-ab?",
        ),
        (
            "{says: x, rows: [abd], smallest: linear, within: method}",
            "names 'abd', which is no row; did you mean ab? Known: abc, simclr-abc",
        ),
        (
            "{says: x, rows: a, smallest: linear, within: augmnt}",
            "within (line 10) is 'augmnt', which is no axis; did you mean augment? Known: method, augment",
        ),
        (
            "{says: x, rows: simclr-a, smallest: alignmet}",
            "claims[0].smallest (line 10) names 'alignmet', which is no quantity; did you mean alignment?",
        ),
        (
            "{says: x, rows: simclr-a, largest: [linear, error]}",
            "claims[0].largest (line 10) names 'error', which is no quantity",
        ),
        ("{says: x, order: [simclr-a, moco-a], by: knn}", "claims[0].by (line 10) names 'knn', which is no quantity"),
        (
            "{says: x, rows: '*', smallest: linear}",
            "claims[0].rows (line 10) names every row there is, and leaves none",
        ),
        (
            "{says: x, order: ['*-a', '*b*'], by: linear}",
            "which is 2 rows of simclr (simclr-abc, simclr-ab); must be one",
        ),
        (
            "{says: x, order: ['*-a', 'simclr-ab'], by: linear}",
            "names 'simclr-ab', which is no row of moco; must be one",
        ),
        ("{says: x, order: ['*-a', a], by: linear}", "names simclr-a twice, as '*-a' and as 'a'"),
        ("3", "claims[0] must be a mapping with says"),
    ],
)
def test_bad_claim(load: Load, claim: str, message: str) -> None:
    assert message in refusal(load, f"{HEAD}claims:\n  - {claim}\n")


def test_a_fault_names_the_claim_it_is_in(load: Load) -> None:
    text = "claims:\n  - {says: x, rows: simclr-a, smallest: linear}\n"
    text += "  - says: y\n    rows: simclr-x\n    smallest: linear\n"
    assert "claims[1].rows (line 12) names 'simclr-x'" in refusal(load, HEAD + text)
    assert "claims (line 9) is 3; must be a list of claims" in refusal(load, HEAD + "claims: 3\n")


def test_quantities_are_checked_where_they_are_known(load: Load) -> None:
    text = HEAD + "claims:\n  - {says: x, rows: simclr-a, smallest: anything}\n"
    assert load(text, quantities=None).claims[0].smallest == ("anything",)


# -------------------------------------------------------------------------------------------- which rows a claim names
def claim(**fields: object) -> Claim:
    quantity = {"by": "q"} if "order" in fields else {"smallest": "q"}
    return Claim.model_validate({"says": "x", **quantity, **fields})


def named(claim: Claim, rows: dict[str, dict[str, str]] = ROWS) -> list[tuple[str | None, tuple[str, ...]]]:
    assert faults_of(claim, rows) == []
    return [(group.variant, group.named) for group in groups_of(claim, rows)]


def test_a_row_is_named_by_its_name_or_within_an_axis_by_the_rest() -> None:
    assert named(claim(rows="simclr-ab")) == [(None, ("simclr-ab",))]
    both = [("simclr", ("simclr-ab",)), ("moco", ("moco-ab",))]
    assert named(claim(rows="ab", within="method")) == both
    assert named(claim(rows="*-ab")) == both
    assert "names every row" in faults_of(claim(rows="*-ab", within="augment"), ROWS)[0][1]
    assert named(claim(rows="simclr-ab", within="method")) == [("simclr", ("simclr-ab",))]
    assert named(claim(rows=["simclr"], within="augment")) == [(v, (f"simclr-{v}",)) for v in ("abc", "ab", "a")]


def test_the_rows_of_a_group_are_those_of_its_variant() -> None:
    (simclr, moco) = groups_of(claim(rows="*-ab"), ROWS)
    assert simclr.rows == ("simclr-abc", "simclr-ab", "simclr-a")
    assert moco.rows == ("moco-abc", "moco-ab", "moco-a")
    (everything,) = groups_of(claim(rows="moco-ab"), ROWS)
    assert everything.rows == tuple(ROWS)


def test_an_order_keeps_its_order_and_rows_that_of_the_sweep() -> None:
    assert named(claim(order=["a", "ab", "abc"], within="method"))[0][1] == ("simclr-a", "simclr-ab", "simclr-abc")
    assert named(claim(order=["*-a", "*-abc"]))[1][1] == ("moco-a", "moco-abc")
    assert named(claim(rows=["a", "ab"], within="method"))[0][1] == ("simclr-ab", "simclr-a")
    assert named(claim(order=["moco-a", "simclr-a"])) == [(None, ("moco-a", "simclr-a"))]


def test_without_an_axis_method_a_pattern_is_over_all_rows() -> None:
    rows = {name: {"augment": name} for name in ("ab", "ac", "ad")}
    pattern = claim(rows="a[bc]")  # only * and ? make a pattern one of each method
    assert axis_of(pattern, ["augment"]) is None
    assert named(claim(rows=["?b", "?c"]), rows) == [(None, ("ab", "ac"))]
    alone = {"s": {}}
    assert faults_of(claim(rows="s"), alone)[0][1] == "names every row there is, and leaves none to compare with"


def test_a_negative_control_is_no_row_of_a_claim(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    recipe = load_recipe("simclr-cifar10")
    assert not is_negative_control(recipe)
    assert not is_negative_control(recipe.model_copy(update={"augment": SimpleNamespace(fade=None)}))
    assert is_negative_control(recipe.model_copy(update={"augment": SimpleNamespace(fade={"p": 1})}))

    monkeypatch.setattr("cssl_cli.sweep.sweep.is_negative_control", lambda recipe: recipe.augment.blur is None)
    message = refusal(load, HEAD + "claims:\n  - {says: x, rows: simclr-a, smallest: linear}\n")
    assert "names 'simclr-a', which is no row" in message
    assert "(simclr-a: a negative control, of which nothing is claimed)" in message
    assert load(HEAD + "claims:\n  - {says: x, rows: simclr-ab, smallest: linear}\n").claims


# --------------------------------------------------------------------------------------------------------------- parts
PARTS = """\
parts:
  augment:
    abc: [a, b, c]
    ab: [a, b]
    a: [a]
"""
CONTROL = "    control: {augment: {flip: null, jitter: null, gray: null, blur: null, fade: {}}}\n"


def parts_of(load: Load, text: str) -> dict[str, dict[str, frozenset[str]]]:
    return {member.row: dict(member.parts) for member in load(text).members}


def test_parts(load: Load) -> None:
    found = parts_of(load, HEAD + CONTROL + PARTS)
    assert found["moco-abc"] == {"augment": frozenset("abc")}
    assert found["simclr-a"] == {"augment": frozenset("a")}
    assert found["moco-control"] == {}  # a negative control needs none
    assert parts_of(load, HEAD)["moco-abc"] == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  augment:\n    abc",
            "  augmen:\n    abc",
            "parts.augmen (line 10) is no axis; did you mean augment?",
        ),
        ("    a: [a]", "    d: [a]", "parts.augment.d (line 13) is no variant of the axis. Known: abc, ab, a"),
        ("    a: [a]\n", "", "parts.augment (line 10) lacks the parts of a"),
        ("    a: [a]", "    a: null", "parts.augment (line 10) lacks the parts of a"),
        ("    a: [a]", "    a: a", 'parts.augment.a (line 13) is "a"; must be a list of the names of its parts'),
        ("    a: [a]", "    a: [1]", "parts.augment.a (line 13) is [1]; must be a list of the names of its parts"),
        ("    a: [a]", "    a: [a, a]", "parts.augment.a (line 13) names a part twice"),
        ("    a: [a]", "    a: [b, a]", "parts.augment.a (line 13) has the same parts as ab; name what they differ in"),
        (PARTS.partition("\n")[2], "  augment: 3\n", "parts.augment (line 10) is 3; must be a mapping of variants"),
        (PARTS, "parts: 3\n", "parts (line 9) is 3; must be a mapping of axes to their variants' lists of parts"),
    ],
)
def test_faults_of_parts(load: Load, old: str, new: str, message: str) -> None:
    assert old in PARTS
    assert message in refusal(load, HEAD + PARTS.replace(old, new))


def test_inherited_parts_of_what_was_taken_away_go_with_it(load: Load, tmp_path: Path) -> None:
    (tmp_path / "whole.yaml").write_text(HEAD.replace("name: s", "name: whole") + PARTS)
    own = "name: s\nbased_on: whole.yaml\n"
    assert parts_of(load, own)["moco-ab"] == {"augment": frozenset("ab")}
    fewer = parts_of(load, own + "axes: {augment: {abc: null}}\n")
    assert fewer["moco-ab"] == {"augment": frozenset("ab")}
    more = own + "axes: {augment: {b: {augment: {flip: null, jitter: null, gray: null, crop: null}}}}\n"
    assert "parts.augment (" in refusal(load, more)
    assert parts_of(load, more + "parts: {augment: {b: [b]}}\n")["moco-b"] == {"augment": frozenset("b")}
    assert parts_of(load, own + "axes: {augment: null}\n")["moco"] == {}
    assert parts_of(load, own + "parts: null\n")["moco-ab"] == {}
    assert parts_of(load, own + "parts: {augment: null}\n")["moco-ab"] == {}
