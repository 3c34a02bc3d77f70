"""Every way in which a recipe can be wrong, and what its reader is told."""

from collections.abc import Callable

import pytest

from cssl_cli.errors import InputError
from cssl_cli.recipe import load_recipe
from tests.support.recipe_files import GOOD, refusal


def test_the_good_file_is_good(write: Callable[..., str]) -> None:
    assert load_recipe(write(GOOD)).optim.lr == 0.1


# Each override breaks one field of GOOD: field, value found, what is allowed.
BAD_VALUES = [
    ("name=A b", 'name is "A b"; must be at most 100 of the characters a-z 0-9 . _ -'),
    ("name=-x", "the first a letter or digit"),
    ('name="x\\n"', "must be at most 100"),
    ("name=5", "name is 5; must be at most 100"),
    ("name=" + "x" * 101, "must be at most 100"),
    ("seed=-1", "seed is -1; must be a whole number from 0 to 2**32 - 1"),
    ("seed=4294967296", "seed is 4294967296; must be a whole number"),
    ("seed=true", "seed is true; must be a whole number"),
    ("seed=1.0", "seed is 1.0; must be a whole number"),
    ("seed='1'", 'seed is "1"; must be a whole number'),
    ("data.limit=1", "data.limit is 1; must be a whole number >= 2"),
    ("data.num_train=0", "data.num_train is 0"),
    ("data.num_test=1", "data.num_test is 1"),
    ("data.size=7", "data.size is 7; must be a whole number in [8, 1024]"),
    ("data=shapes", 'data is "shapes"; must be a block whose name is one of shapes, cifar10'),
    (
        "data.name=shape",
        'data.name is "shape"; must be one of shapes, cifar10, cifar100, stl10, svhn, torchvision, '
        "folder, arrays, huggingface; did you mean shapes?",
    ),
    ("data.name=3", "data.name is 3; must be one of"),
    ("data.name=[shapes]", 'data.name is ["shapes"]; must be one of'),
    ("data.name={a: 1}", 'data.name is {"a": 1}; must be one of'),
    ("data.name=null", "data.name is required; give it as data.name=NAME, one of shapes"),
    ("augment=crop", 'augment is "crop"; must be a block of crop, flip'),
    ("augment.crop=true", "augment.crop is true; must be a block of scale, ratio"),
    ("augment.crop.scale=0.5", "augment.crop.scale is 0.5; must be [low, high] with 0 < low <= high <= 1"),
    ("augment.crop.scale=[0, 1]", "must be [low, high]"),
    ("augment.crop.scale=[0.5, 1.1]", "must be [low, high]"),
    ("augment.crop.scale=[0.5, 0.4]", "augment.crop.scale is [0.5, 0.4]; must be [low, high]"),
    ("augment.crop.scale=[0.5]", "must be [low, high]"),
    ("augment.crop.scale=[0.1, 0.2, 0.3]", "must be [low, high]"),
    ("augment.crop.scale=[0.1, null]", "augment.crop.scale is [0.1, null]"),
    ("augment.crop.scale=[true, true]", "must be [low, high]"),
    ("augment.crop.ratio=[2, 1]", "augment.crop.ratio is [2, 1]; must be [low, high] with 0 < low <= high"),
    ("augment.flip.p=1.5", "augment.flip.p is 1.5; must be a number in [0, 1]"),
    ("augment.flip.p=-0.1", "must be a number in [0, 1]"),
    ("augment.jitter.p=yes", 'augment.jitter.p is "yes"; must be a number in [0, 1]'),
    ("augment.jitter.strength=3", "augment.jitter.strength is 3; must be a number in [0, 2.5]"),
    ("augment.jitter.hue=0.6", "augment.jitter.hue is 0.6; must be a number in [0, 0.5]"),
    ("augment.jitter.brightness=-1", "augment.jitter.brightness is -1; must be a number >= 0"),
    ("augment.gray.p=2", "augment.gray.p is 2"),
    ("augment.blur.sigma=[0, 1]", "augment.blur.sigma is [0, 1]"),
    ("augment.blur.kernel_size=4", "augment.blur.kernel_size is 4; must be an odd whole number >= 3"),
    ("augment.blur.kernel_size=1", "must be an odd whole number >= 3"),
    ("augment.solarize.threshold=2", "augment.solarize.threshold is 2; must be a number in [0, 1]"),
    ("augment.cutout.scale=[0.2, 2]", "augment.cutout.scale is [0.2, 2]"),
    ("encoder.width=0", "encoder.width is 0; must be a whole number in [1, 4096]"),
    ("encoder.name=resnet", 'encoder.name is "resnet"; must be one of resnet18, resnet34, resnet50, resnet101, small,'),
    ("method.temperature=0", "method.temperature is 0; must be a number > 0"),
    ("method.temperature=.nan", "method.temperature is NaN; must be a number > 0"),
    ("method.temperature=.inf", "method.temperature is Infinity; must be a number > 0"),
    ("method.projector=[]", "method.projector is []; must be a list of whole numbers from 1 to 65536"),
    ("method.projector=[8, 0]", "method.projector is [8, 0]; must be a list of whole numbers from 1 to 65536"),
    ("method.projector=8", "method.projector is 8; must be a list of whole numbers from 1 to 65536"),
    ("optim.lr=fast", 'optim.lr is "fast"; must be a number > 0'),
    ("optim.lr='0.5'", 'optim.lr is "0.5"; must be a number > 0'),
    ("optim.lr=0", "optim.lr is 0; must be a number > 0"),
    ("optim.lr=true", "optim.lr is true; must be a number > 0"),
    ("optim.lr=null", "is required; give it as optim.lr=VALUE, a number > 0"),
    ("optim.momentum=1", "optim.momentum is 1; must be a number in [0, 1)"),
    ("optim.weight_decay=-1", "optim.weight_decay is -1; must be a number >= 0"),
    ("optim.nesterov=on", 'optim.nesterov is "on"; must be true or false'),
    ("optim.nesterov=1", "optim.nesterov is 1; must be true or false"),
    ("optim.schedule=cos", 'optim.schedule is "cos"; must be cosine or constant'),
    ("optim.warmup_epochs=-1", "optim.warmup_epochs is -1; must be a whole number >= 0"),
    ("optim.warmup_epochs=5", "lasts 5 epochs and must last longer than optim.warmup_epochs, 5"),
    ("train.epochs=0", "lasts 0 epochs, which is for an encoder trained elsewhere"),
    ("train.epochs=1e1", "train.epochs is 10.0; must be a whole number >= 0"),
    ("train.epochs=null", "train.steps or train.epochs is required; give exactly one of them"),
    ("train={epochs: 5, steps: 5}", "train.steps and train.epochs are both given; give exactly one of them"),
    ("train.batch_size=1", "train.batch_size is 1; must be a whole number >= 2"),
    ("train.precision=float16", 'train.precision is "float16"; must be auto or float32 or bfloat16'),
    ("train.checkpoint_minutes=-1", "train.checkpoint_minutes is -1; must be a number >= 0"),
    ("train=null", "train is required: a block of epochs, steps"),
    ("probe.knn_k=0", "probe.knn_k is 0"),
    ("probe.knn_temperature=0", "probe.knn_temperature is 0"),
    ("probe.center_views=0", "probe.center_views is 0"),
    ("probe.penalties=[1, 0.1]", "probe.penalties is [1, 0.1]; must be increasing numbers > 0"),
    ("probe.penalties=[0, 1]", "probe.penalties is [0, 1]; must be increasing numbers > 0"),
    ("probe.penalties=[]", "probe.penalties is []"),
    ("probe.validation_fraction=1", "probe.validation_fraction is 1; must be a number in (0, 1)"),
    ("analyze.num_images=1", "analyze.num_images is 1"),
    ("analyze.num_views=0", "analyze.num_views is 0"),
    ("analyze.epsilons=[0.1, 0.1]", "analyze.epsilons is [0.1, 0.1]; must be increasing numbers, 0 or in [1e-9, 1e9]"),
    ("analyze.epsilons=[5e-324]", "must be increasing numbers, 0 or in [1e-9, 1e9]"),
    ("analyze.deltas=[1, 1.7e308]", "must be increasing numbers in [1e-9, 1e9]"),
    ("analyze.bootstrap=1000001", "must be a whole number in [0, 1000000]"),
    ("analyze.bootstrap=-1", "analyze.bootstrap is -1"),
    ("optim.momentun=0.5", "optim.momentun is not a field of sgd; did you mean optim.momentum? Known: name, lr,"),
    ("optim.momentun=null", "optim.momentun is not a field of sgd; did you mean optim.momentum?"),
    ("optim.temperature=1", "optim.temperature is not a field of sgd; did you mean method.temperature?"),
    ("optim.betas=[0, 0]", "optim.betas is a field of adamw, not of sgd. Known: name, lr"),
    ("optm.lr=0.1", "optm is not a field; did you mean optim.lr?"),
    ("lr=0.1", "lr is not a field; did you mean optim.lr?"),
    ("~augment.blurr", "augment.blurr is not a field; did you mean augment.blur?"),
    ("analyze.foo=1", "analyze.foo is not a field. Known: num_images, num_views,"),
    ("augment.crop.p=1", "augment.crop.p is not a field. Known: scale, ratio"),
    ("method.lambda_=1", "method.lambda_ is not a field of simclr"),
    ("optim.lr.x=3", 'optim.lr is {"x": 3}; must be a number > 0'),
]


@pytest.mark.parametrize(("override", "message"), BAD_VALUES, ids=[override[:40] for override, _ in BAD_VALUES])
def test_bad_value(write: Callable[..., str], override: str, message: str) -> None:
    error = refusal(write(GOOD), override)
    assert message in error.what
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("folder", "data.size=9", "data.root is required; give it as data.root=PATH"),
        ("folder", "data.root=3", "data.root is 3; must be the path of a folder"),
        ("folder", "data.root=''", 'data.root is ""; must be the path of a folder'),
        ("folder", 'data.root="a\\0b"', "must be the path of a folder"),
        ("folder", "data.root=~no-such-user-here/x", "data.root begins with ~no-such-user-here, a home folder, but"),
        ("folder", "data.root=007", "data.root is 7; must be the path of a folder; write what is meant as text in quo"),
        ("folder", "data.root=/\udcff", "holds bytes that are no UTF-8"),
        ("folder", "data={root: x, test_fraction: 0}", "data.test_fraction is 0; must be a number in (0, 1)"),
        (
            "cifar10",
            "data.size=32",
            "data.size is a field of shapes, torchvision, folder, arrays and huggingface, not of cifar10",
        ),
    ],
)
def test_bad_data(write: Callable[..., str], name: str, override: str, message: str) -> None:
    assert message in refusal(write(GOOD), f"data.name={name}", override).what


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.momentum=0", "optim.nesterov=true"], "optim.nesterov needs optim.momentum > 0"),
        (["optim.name=adamw"], "optim.lr is required"),
        (["optim={name: adamw, lr: 1, betas: [0.9, 1]}"], "optim.betas is [0.9, 1]; must be two numbers in [0, 1)"),
        (["optim={name: lars, lr: 1, trust_coefficient: 0}"], "optim.trust_coefficient is 0"),
        (["method={name: barlow_twins, lambda: -1}"], "method.lambda is -1; must be a number >= 0"),
        (["method={name: barlow_twins, lambda_: 1}"], "did you mean method.lambda?"),
        (
            ["method.name=barlow_twins", "method.temperature=1"],
            "is a field of moco and simclr, not of barlow_twins",
        ),
    ],
)
def test_bad_combination(write: Callable[..., str], overrides: list[str], message: str) -> None:
    assert message in refusal(write(GOOD), *overrides).what


def test_all_faults_of_a_file_are_listed_with_their_lines(write: Callable[..., str]) -> None:
    path = write(
        """\
name: Mine
augmentt: {}
augment:
  crop: {scale: [2, 1]}
encoder: {name: small, widht: 3}
method: {name: simclrr}
optim:
  name: sgd
  momentum: -1
  warmup_epochs: x
train: {batch_size: 1}
"""
    )
    error = refusal(path)
    assert error.where == path
    first, *lines = error.what.splitlines()
    assert first == "11 faults"
    for path_and_line in [
        "name (line 1) is",
        "augmentt (line 2) is not a field; did you mean augment?",
        "data is required: a block whose name is one of",
        "augment.crop.scale (line 4) is [2, 1]",
        "encoder.widht (line 5) is not a field of small; did you mean encoder.width?",
        'method.name (line 6) is "simclrr"',
        "optim.lr (line 8) is required",
        "optim.momentum (line 9) is -1",
        "optim.warmup_epochs (line 10) is",
        "train.steps (line 11) or train.epochs is required",
        "train.batch_size (line 11) is 1",
    ]:
        assert sum(line.strip().startswith(path_and_line) for line in lines) == 1, path_and_line


def test_where_names_the_override_that_is_wrong(write: Callable[..., str]) -> None:
    assert refusal(write(GOOD), "seed=1", "optim.lr=x").where == "override 'optim.lr=x'"
    assert refusal(write(GOOD), "seed=x", "optim.lr=x").where == "overrides"
    mixed = refusal(write(GOOD.replace("0.1", "x"), "bad.yaml"), "seed=x")
    assert mixed.where is not None
    assert mixed.where.endswith("bad.yaml")
    assert "seed (override 'seed=x') is" in mixed.what
    assert "optim.lr (line 7) is" in mixed.what


def test_a_fault_of_a_base_names_the_base(write: Callable[..., str]) -> None:
    base = write(GOOD.replace("0.1", "x"), "base.yaml")
    child = write("name: child\nbased_on: base.yaml\nseed: -1\n", "child.yaml")
    error = refusal(child)
    assert error.where == child
    assert f"optim.lr ({base}, line 7) is" in error.what
    assert "seed (line 3) is -1" in error.what


def test_circle_names_every_file(write: Callable[..., str]) -> None:
    first = write("name: a\nbased_on: b.yaml\n", "a.yaml")
    write("name: b\nbased_on: c.yaml\n", "b.yaml")
    write("name: c\nbased_on: ./a.yaml\n", "c.yaml")
    assert [part.rpartition("/")[2] for part in refusal(first).what.split(" -> ")] == [
        "a.yaml",
        "b.yaml",
        "c.yaml",
        "a.yaml",
    ]


def test_a_sweep_is_pointed_to_its_command() -> None:
    error = refusal("quickstart")
    assert "is a sweep, not a recipe" in error.what
    assert error.remedy == "Run it with: cssl sweep quickstart"


@pytest.mark.parametrize(
    ("overrides", "blamed"),
    [
        (["train.epochs=2", "train.batch_size=8"], "train.epochs=2"),
        (["optim.warmup_epochs=9", "train.batch_size=8"], "optim.warmup_epochs=9"),
        (["train.epochs=9", "optim.warmup_epochs=9"], "optim.warmup_epochs=9"),
        (["optim.warmup_epochs=9", "train.epochs=9"], "train.epochs=9"),
    ],
)
def test_of_two_fields_that_do_not_go_together_the_last_given_is_to_blame(
    write: Callable[..., str], overrides: list[str], blamed: str
) -> None:
    path = write(GOOD.replace("optim: {", "optim: {warmup_epochs: 3, "))
    with pytest.raises(InputError, match="must last longer than") as caught:
        load_recipe(path, overrides)
    assert caught.value.where == f"override '{blamed}'"


def test_a_warm_up_that_is_too_long_is_told_with_its_line_and_what_to_give(write: Callable[..., str]) -> None:
    text = GOOD.replace("optim: {", "optim: {warmup_epochs: 30, ")
    with pytest.raises(InputError, match=r"train \(line 8\)") as caught:
        load_recipe(write(text))
    assert "give optim.warmup_epochs=0, or more epochs" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "nested"),
    [
        ("optim.lr: 0.3", "optim: {lr: 0.3}"),
        ("augment.crop.scale: [0.2, 1]", "augment: {crop: {scale: [0.2, 1]}}"),
        ("data.root: /x", 'data: {root: "/x"}'),
        ("probe: {knn.k: 3}", None),
    ],
)
def test_a_dotted_key_in_a_file(write: Callable[..., str], line: str, nested: str | None) -> None:
    error = refusal(write(f"{GOOD}{line}\n"))
    assert (f"(line 9) is not a field; a dot does not nest in a file: write {nested}" in error.what) == bool(nested)


def test_an_alias_is_told_with_its_own_line(write: Callable[..., str]) -> None:
    text = GOOD.replace("optim: {", "optim: &o {") + "probe: *o\n"
    assert refusal(write(text)).what.startswith("line 9: aliases (*name) are not allowed")


@pytest.mark.parametrize("override", ["analyze.classes=[1, 2]", "analyze.classes=[cat, true]", "name=1e3"])
def test_numbers_in_place_of_names_are_to_be_quoted(write: Callable[..., str], override: str) -> None:
    assert "; write what is meant as text in quotes, such as '007'" in refusal(write(GOOD), override).what


@pytest.mark.parametrize("override", ["analyze.classes=cat", "seed=x", "data.name=3", "train.precision=32"])
def test_and_nothing_else_is(write: Callable[..., str], override: str) -> None:
    assert "in quotes" not in refusal(write(GOOD), override).what


def test_at_most_fifty_faults_are_listed(write: Callable[..., str]) -> None:
    error = refusal(write(GOOD + "".join(f"unknown_{number}: 1\n" for number in range(3000))))
    lines = error.what.splitlines()
    assert lines[0] == "3000 faults"
    assert len(lines) == 52
    assert lines[-1] == "  and 2950 more"


def test_keys_and_values_of_any_length_are_shown_short(write: Callable[..., str]) -> None:
    error = refusal(write(f'{GOOD}? "{"k" * 500_000}\\e[31m"\n: 1\nseed: {"v" * 400_000}\n'))
    assert len(error.what) < 1500


def test_no_control_character_of_a_file_is_shown_raw(write: Callable[..., str]) -> None:
    error = refusal(write(GOOD + 'seed: "\\e[31m\\x9b"\n"\\e[2J": 1\n'))
    assert error.what.replace("\n", "").isprintable()
