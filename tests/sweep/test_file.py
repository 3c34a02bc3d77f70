"""Sweep files: axes, variants and seeds become an ordered list of validated recipes."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cssl_cli.errors import InputError
from cssl_cli.recipe import load_recipe
from cssl_cli.recipe.files import Source, shipped_names
from cssl_cli.recipe.load import resolve
from cssl_cli.recipe.merge import merge
from cssl_cli.report.compare.named_quantities import NAMES
from cssl_cli.sweep.file import read_sweep_file
from cssl_cli.sweep.sweep import _read_axes, load_sweep

SWEEP = """\
name: both
base: simclr-cifar10
axes:
  method:
    simclr: {}
    twins: {method: {name: barlow_twins, projector: [8, 8]}, optim: {lr: 0.2}}
  augment:
    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}
    full:
seeds: [3, 1]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write(text: str, name: str = "sweep.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def refusal(name_or_path: str, *overrides: str) -> InputError:
    with pytest.raises(InputError) as error:
        load_sweep(name_or_path, overrides)
    return error.value


def test_members_in_order(write: Callable[..., str]) -> None:
    sweep = load_sweep(write(SWEEP))
    assert sweep.name == "both"
    assert sweep.axes == {"method": ("simclr", "twins"), "augment": ("crop", "full")}
    assert [member.name for member in sweep.members] == [
        "simclr-crop-seed3",
        "simclr-crop-seed1",
        "simclr-full-seed3",
        "simclr-full-seed1",
        "twins-crop-seed3",
        "twins-crop-seed1",
        "twins-full-seed3",
        "twins-full-seed1",
    ]
    member = sweep.members[5]
    assert (member.row, member.seed, dict(member.axes)) == ("twins-crop", 1, {"method": "twins", "augment": "crop"})
    assert (member.recipe.name, member.recipe.seed) == (member.name, 1)


def test_a_member_is_the_recipe_with_the_patches_of_its_variants(write: Callable[..., str]) -> None:
    member = load_sweep(write(SWEEP)).members[4]
    overrides = ["name=twins-crop-seed3", "seed=3", "method={name: barlow_twins, projector: [8, 8]}", "optim.lr=0.2"]
    deletions = [f"~augment.{block}" for block in ("flip", "jitter", "gray", "blur")]
    assert member.recipe == load_recipe("simclr-cifar10", [*overrides, *deletions])


@pytest.mark.parametrize(("seeds", "expected"), [("3", [0, 1, 2]), ("[5]", [5]), ("null", [0])])
def test_seeds(write: Callable[..., str], seeds: str, expected: list[int]) -> None:
    sweep = load_sweep(write(f"name: s\nbase: simclr-cifar10\nseeds: {seeds}\n"))
    assert [member.seed for member in sweep.members] == expected
    assert [member.name for member in sweep.members] == [f"s-seed{seed}" for seed in expected]
    assert sweep.axes == {}


def test_without_seeds_the_base_decides(write: Callable[..., str]) -> None:
    write("name: mine\nbased_on: simclr-cifar10\nseed: 8\n", "mine.yaml")
    (member,) = load_sweep(write("name: s\nbase: mine.yaml\naxes: {}\n")).members
    assert (member.name, member.recipe.seed) == ("s-seed8", 8)


def test_an_inline_base_may_be_based_on_a_recipe(write: Callable[..., str]) -> None:
    path = write("name: s\nbase: {based_on: simclr-cifar10, train: {steps: 4}}\nseeds: 2\n")
    assert [member.recipe.train.steps for member in load_sweep(path).members] == [4, 4]


def test_a_base_may_leave_to_the_variants_what_they_all_give(write: Callable[..., str]) -> None:
    inline = "{data: {name: shapes}, augment: {}, encoder: {name: small}, optim: {name: sgd, lr: 1}, train: {steps: 2}}"
    axes = "{method: {a: {method: {name: simclr}}, b: {method: {name: barlow_twins}}}}"
    sweep = load_sweep(write(f"name: s\nbase: {inline}\naxes: {axes}\n"))
    assert [member.recipe.method.name for member in sweep.members] == ["simclr", "barlow_twins"]


@pytest.mark.parametrize(
    ("axis", "names"),
    [
        ("optim.lr: [0.03, 5e-4, 1]", ["0.03", "0.0005", "1"]),
        ("method.projector: [[64, 32], [16]]", ["64-32", "16"]),
        ("augment.blur: [null, {p: 0.1}]", ["null", "p-0.1"]),
        ("optim.nesterov: [true, false]", ["true", "false"]),
        ("train.precision: [float32, bfloat16]", ["float32", "bfloat16"]),
    ],
)
def test_values_of_a_dotted_key(write: Callable[..., str], axis: str, names: list[str]) -> None:
    sweep = load_sweep(write(f"name: s\nbase: simclr-cifar10\naxes:\n  {axis}\n"))
    assert [member.row for member in sweep.members] == names
    key = axis.partition(":")[0]
    assert sweep.axes == {key: tuple(names)}


def test_later_axes_change_what_earlier_ones_set(write: Callable[..., str]) -> None:
    axes = "{one: {a: {optim: {lr: 1, momentum: 0.5}}}, two: {b: {optim: {lr: 2}}}}"
    (member,) = load_sweep(write(f"name: s\nbase: simclr-cifar10\naxes: {axes}\n")).members
    assert member.recipe.settings("optim")["lr"] == 2
    assert member.recipe.settings("optim")["momentum"] == 0.5


def test_overrides_change_every_member(write: Callable[..., str]) -> None:
    sweep = load_sweep(write(SWEEP), ["train.steps=7", "~probe", "seeds=[4]", "name=other"])
    assert sweep.name == "other"
    assert [member.seed for member in sweep.members] == [4] * 4
    assert all((member.recipe.train.epochs, member.recipe.train.steps) == (None, 7) for member in sweep.members)
    assert len(load_sweep(write(SWEEP), ["~seeds"]).members) == 4


def test_overrides_come_after_the_variants(write: Callable[..., str]) -> None:
    assert {member.recipe.optim.lr for member in load_sweep(write(SWEEP), ["optim.lr=0.7"]).members} == {0.7}


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(1, 3))
def test_the_number_of_members_is_the_product(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], n: int
) -> None:
    fields = ["optim.lr", "method.temperature", "train.batch_size"]
    axes = {field: [number + 2 for number in range(size)] for field, size in zip(fields, sizes, strict=False)}
    path = tmp_path_factory.mktemp("sweep") / "s.yaml"
    path.write_text(f"name: s\nbase: simclr-cifar10\naxes: {axes}\nseeds: {n}\n")
    members = load_sweep(str(path)).members
    product = n
    for size in sizes:
        product *= size
    assert len({member.name for member in members}) == len({member.recipe.fingerprint for member in members}) == product


# -------------------------------------------------------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: s\naxes: {}", "base is required: the name or the path of a recipe"),
        ("base: simclr-cifar10", "name is required"),
        ("name: S\nbase: simclr-cifar10", 'name (line 1) is "S"; must be'),
        ("name: s\nbase: 3", "base (line 2) is 3; must be the name or the path of a recipe"),
        ("name: s\nbase: nothing", "unknown recipe 'nothing'"),
        ("name: s\nbase: simclr-cifar", "Did you mean 'simclr-cifar10'?"),
        ("name: s\nbase: none.yaml", "its base none.yaml does not exist"),
        ("name: s\nbase: quickstart", "is a sweep, not a recipe"),
        ("name: s\nbase: simclr-cifar10\nseed: [1]", "seed (line 3) is not a field; did you mean seeds?"),
        ("name: s\nbase: simclr-cifar10\naxis: {}", "axis (line 3) is not a field; did you mean axes?"),
        ("name: s\nbase: simclr-cifar10\naxes: [a]", 'axes (line 3) is ["a"]; must be a mapping of axes'),
        ("name: s\nbase: simclr-cifar10\nseeds: 0", "seeds (line 3) is 0; must be a list of different seeds"),
        ("name: s\nbase: simclr-cifar10\nseeds: true", "seeds (line 3) is true; must be"),
        ("name: s\nbase: simclr-cifar10\nseeds: []", "seeds (line 3) is []; must be"),
        ("name: s\nbase: simclr-cifar10\nseeds: [1, 1]", "seeds (line 3) is [1, 1]; must be a list of different seeds"),
        ("name: s\nbase: simclr-cifar10\nseeds: [-1]", "seeds (line 3) is [-1]; must be"),
        ("name: s\nbase: simclr-cifar10\nseeds: [1, x]", 'seeds (line 3) is [1, "x"]; must be'),
        ("name: s\nbase: simclr-cifar10\naxes: {a: 3}", "axes.a (line 3) is 3; must be a mapping of variants"),
        ("name: s\nbase: simclr-cifar10\naxes: {a: {}}", "axes.a (line 3) is {}; must be a mapping of variants"),
        ("name: s\nbase: simclr-cifar10\naxes: {optim.lr: []}", "axes.optim.lr (line 3) is []; must be"),
        ("name: s\nbase: simclr-cifar10\naxes: {a: {B: {}}}", "axes.a (line 3) has a variant 'B'; a name takes a-z"),
        ("name: s\nbase: simclr-cifar10\naxes: {a: {b: 3}}", "has a variant 'b' that is 3; must be a mapping"),
        ("name: s\nbase: simclr-cifar10\naxes: {a: {b: {seed: 3}}}", "changes seed, which the sweep sets itself"),
        ("name: s\nbase: simclr-cifar10\naxes: {seed: [1, 2]}", "changes seed, which the sweep sets itself"),
        ("name: s\nbase: simclr-cifar10\naxes: {optim.lr: [1, 1.0, 1]}", "has two variants '1'"),
        ("name: s\nbase: simclr-cifar10\naxes: {optim.lr: [-1, 1]}", "has two variants '1'"),
        ("name: s\nbase: simclr-cifar10\naxes: {optim.lrr: [1, 2]}", "did you mean optim.lr?"),
        ("name: s\nbase: simclr-cifar10\naxes: {a: {b: {}, b: {}}}", "the key 'b' is given twice"),
        ("name: s\nbase: {optim: {lr: 1}}", "method is required: a block whose name is one of"),
        ("name: s\nbase: {based_on: s.yaml}", "its base s.yaml does not exist"),
    ],
)
def test_bad_sweep(write: Callable[..., str], content: str, message: str) -> None:
    error = refusal(write(content))
    assert message in str(error)
    assert error.exit_code == 2
    assert "sweep.yaml" in str(error)


def test_a_fault_of_a_variant_names_axis_variant_and_line_once(write: Callable[..., str]) -> None:
    text = SWEEP.replace("optim: {lr: 0.2}", "optim: {lr: 0.2, momentun: 1}").replace("gray: null", "grey: null")
    error = refusal(write(text))
    assert error.what.splitlines()[0] == "2 faults"
    assert (
        error.what.count("augment.grey (axis augment, variant crop, line 8) is not a field; did you mean augment.gray?")
        == 1
    )
    assert error.what.count("optim.momentun (axis method, variant twins, line 6) is not a field of sgd") == 1


def test_a_fault_of_the_base_names_its_file_and_that_of_an_override_the_override(write: Callable[..., str]) -> None:
    base = write("name: mine\nbased_on: simclr-cifar10\noptim: {lr: x}\n", "mine.yaml")
    error = refusal(write(SWEEP.replace("simclr-cifar10", "mine.yaml")), "train.batch_size=1")
    assert f"optim.lr ({base}, line 3) is" in error.what
    assert "train.batch_size (override 'train.batch_size=1') is 1" in error.what
    assert error.what.splitlines()[0] == "2 faults"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("axes.method=3", "a sweep's axes cannot be overridden"),
        ("base=simclr-cifar10", "a sweep's base cannot be overridden"),
        ("seed=3", "Write seeds=[0, 1]."),
        ("seeds=x", "must be a list of different seeds"),
        ("method.temperature=1", "method.temperature (override 'method.temperature=1') is a field of moco and simclr"),
        ("foo", "Write key.sub=value"),
    ],
)
def test_bad_override(write: Callable[..., str], override: str, message: str) -> None:
    assert message in str(refusal(write(SWEEP), override))


def test_two_members_that_are_the_same_run_are_both_named(write: Callable[..., str]) -> None:
    error = refusal(write("name: s\nbase: simclr-cifar10\naxes: {a: {b: {}, c: {train: {checkpoint_minutes: 3}}}}\n"))
    assert "b-seed0 and c-seed0 are the same run" in error.what
    assert (
        "are the same run"
        in refusal(write("name: s\nbase: simclr-cifar10\naxes: {optim.lr: [1, 2]}\n"), "optim.lr=3").what
    )


def test_two_members_of_one_name_are_both_named(write: Callable[..., str]) -> None:
    axes = "{p: {x: {}, x-y: {optim: {lr: 1}}}, q: {y-z: {}, z: {optim: {momentum: 0}}}}"
    error = refusal(write(f"name: s\nbase: simclr-cifar10\naxes: {axes}\n"))
    assert error.what == "p x, q y-z and p x-y, q z are both called x-y-z-seed0"


def test_a_recipe_is_pointed_to_its_command() -> None:
    error = refusal("simclr-cifar10")
    assert "is a recipe, not a sweep" in error.what
    assert error.remedy == "Run it with: cssl pretrain simclr-cifar10"


def test_unknown_sweep_lists_sweeps() -> None:
    error = refusal("quickstrat")
    assert "unknown sweep 'quickstrat'" in error.what
    assert "Did you mean 'quickstart'?" in (error.remedy or "")
    assert "simclr" not in (error.remedy or "")


# ---------------------------------------------------------------------- many members
def test_too_many_members_are_counted_and_none_is_made(write: Callable[..., str]) -> None:
    axes = "".join(f"  {letter}: {{x: {{}}, y: {{}}}}\n" for letter in "abcdefghijklmnopqrst")
    path = write(f"name: big\nbase: simclr-shapes\naxes:\n{axes}")
    error = refusal(path)
    assert error.what.startswith("has 1,048,576 members (2 of a x 2 of b")
    assert "more than 10,000" in error.what
    assert "--max-members" in str(error.remedy)
    assert len(str(error)) < 400


def test_the_limit_on_members_is_met_by_variants_and_seeds(write: Callable[..., str]) -> None:
    path = write("name: s\nbase: simclr-shapes\naxes: {optim.lr: [0.1, 0.2, 0.3]}\nseeds: 4\n")
    assert len(load_sweep(path, max_members=12).members) == 12
    with pytest.raises(InputError, match=r"has 12 members \(3 of optim.lr x 4 seeds\), more than 11"):
        load_sweep(path, max_members=11)


@pytest.mark.parametrize("name", shipped_names("sweep"))
def test_members_that_share_blocks_are_those_made_one_by_one(name: str) -> None:
    sweep = load_sweep(name)
    given = read_sweep_file(name)
    axes = _read_axes(given, ())
    made = {}
    for combination in itertools.product(*(axis.items() for axis in axes.values())):
        row = "-".join(variant for variant, _ in combination)
        changes = [source for _, sources in combination for source in sources]
        made[row] = resolve([*given.base, *changes, Source("", {"name": row})])[0]
    for member in sweep.members:
        alone = made[member.row]
        assert alone is not None
        assert member.recipe == alone.model_copy(update={"name": member.name, "seed": member.seed})
        assert member.fingerprint == member.recipe.fingerprint


def test_a_sweep_looks_at_blocks_not_at_members(write: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    lists = f"optim.lr: {[0.01 * step for step in range(1, 11)]}, encoder.width: {list(range(1, 11))}"
    path = write(f"name: s\nbase: simclr-shapes\naxes: {{{lists}}}\nseeds: 10\n")
    merged = []
    monkeypatch.setattr("cssl_cli.sweep.members.merge", lambda base, patch: merged.append(1) or merge(base, patch))
    assert len(load_sweep(path).members) == 1000
    assert len(merged) < 100


def test_the_faults_of_all_variants_are_listed_each_once(write: Callable[..., str]) -> None:
    axes = "  optim.lr: [0.1, -1, -2]\n  encoder.width: [4, 0]\n  train.batch_size: [8, 1]\n"
    error = refusal(write(f"name: s\nbase: simclr-shapes\naxes:\n{axes}"), "probe.knn_k=0")
    assert error.what.splitlines()[0] == "5 faults"
    for value in ("lr", "width", "batch_size", "knn_k"):
        assert value in error.what


def test_faults_between_blocks_are_met_in_every_combination(write: Callable[..., str]) -> None:
    axes = "  train.epochs: [50, 3, 4]\n  optim.warmup_epochs: [0, 3, 10]\n"
    error = refusal(write(f"name: s\nbase: simclr-shapes\naxes:\n{axes}"))
    assert error.what.count("must last longer than optim.warmup_epochs") == 3
    axes = "  train.epochs: [3, 50]\n  optim.warmup_epochs: [10, 0]\n  encoder.width: [0, 4]\n"
    error = refusal(write(f"name: s\nbase: simclr-shapes\naxes:\n{axes}"))
    assert error.what.count("must last longer than optim.warmup_epochs") == 1
    assert "encoder.width is 0" in error.what.replace(" (axis encoder.width, variant 0)", "")


@pytest.mark.parametrize("axis", ["row", "negative_control", "linear", "linear_mean", "knn_sd", "linear_n"])
def test_an_axis_is_not_called_like_a_column(write: Callable[..., str], axis: str) -> None:
    path = write(f"name: s\nbase: simclr-shapes\naxes: {{{axis}: {{a: {{}}}}}}\n")
    with pytest.raises(InputError, match=f"axes.{axis} \\(line 3\\) is called like a column of the table"):
        load_sweep(path, quantities=NAMES)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("method: [simclr, byol]", 'is a list with "simclr", and method is a block; give a mapping of named variants'),
        ("augment.blur: [null, 0.5]", "such as {first: {augment: {blur: {...}}}, second: ...}"),
        ("augment.blur: [{}]", "has a value {}, which gives no name; name its variants"),
        ('"a\\e[31m": {x: {}}', "printable characters"),
        ('"": {x: {}}', "printable characters"),
        (f"{'k' * 200}: {{x: {{}}}}", "printable characters"),
        ("a: {../x: {}}", "has a variant '../x'; a name takes"),
        ("a: {-x: {}}", "has a variant '-x'; a name takes"),
        (f"a: {{{'x' * 300}: {{}}}}", "must be at most 100 of the characters"),
        ('a: {"x\\n": {}}', "has a variant 'x\\n'; a name takes"),
        ("a: {x.partial: {}}", "ends in .partial or .building"),
    ],
)
def test_bad_axes(write: Callable[..., str], axis: str, message: str) -> None:
    error = refusal(write(f"name: s\nbase: simclr-shapes\naxes:\n  {axis}\n"))
    assert message in error.what
    assert error.what.replace("\n", "").isprintable()
    assert len(error.what) < 600


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", ".x", "x" * 300, '"x\\x07"', "x.partial", "x.building"])
def test_a_sweep_is_called_as_a_folder_may_be(write: Callable[..., str], name: str) -> None:
    assert "name " in refusal(write(f"name: {name}\nbase: simclr-shapes\n")).what


def test_a_list_of_optional_blocks_is_one_of_values(write: Callable[..., str]) -> None:
    path = write("name: s\nbase: simclr-shapes\naxes: {augment.blur: [null, {p: 0.25}]}\n")
    assert [member.row for member in load_sweep(path).members] == ["null", "p-0.25"]
