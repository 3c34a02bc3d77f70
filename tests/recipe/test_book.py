"""The recipes that ship, their headers, and the reference of the format."""

import pickle
from pathlib import Path

import pytest

from cssl_cli.errors import InputError
from cssl_cli.methods import method_names
from cssl_cli.recipe import book, files, list_recipes, load_recipe, read_recipe_text
from cssl_cli.recipe.reference import document, table
from cssl_cli.recipe.yaml_text import parse
from cssl_cli.sweep.cluster.settings import Launcher
from cssl_cli.sweep.file import Claim, Reference, SweepFile
from cssl_cli.sweep.sweep import load_sweep

SHIPPED = list_recipes()
LAUNCHER = "`launcher` of a sweep"
CLAIM = "one of the `claims` of a sweep"
DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_what_ships() -> None:
    names = [listing.name for listing in SHIPPED]
    assert names == sorted(names)
    assert {
        "quickstart",
        "simclr-cifar10",
        "barlow_twins-cifar10",
        "simclr-cifar10-small",
        "barlow_twins-cifar10-small",
        "simclr-folder",
    } <= set(names)


@pytest.mark.parametrize("listing", SHIPPED, ids=lambda listing: listing.name)
def test_every_shipped_file_is_valid_and_has_a_header(listing: book.Listing) -> None:
    assert listing.summary
    assert listing.time
    assert listing.result
    if listing.kind == "sweep":
        sweep = load_sweep(listing.name)
        assert sweep.name == listing.name
        assert len(sweep.members) > 1
    else:
        overrides = ["data.root=images"] if listing.name == "simclr-folder" else []
        recipe = load_recipe(listing.name, overrides)
        assert recipe.name == listing.name
        assert pickle.loads(pickle.dumps(recipe)) == recipe  # as a process of its own takes it


def test_the_folder_recipe_asks_for_its_folder() -> None:
    with pytest.raises(InputError, match=r"data\.root .*is required; give it as data\.root=PATH"):
        load_recipe("simclr-folder")


def test_the_published_settings() -> None:
    simclr, twins = load_recipe("simclr-cifar10"), load_recipe("barlow_twins-cifar10")
    for recipe in (simclr, twins):
        encoder = {key: value for key, value in recipe.settings("encoder").items() if value is not None}
        assert encoder == {"name": "resnet18", "width": 64, "stem": "small"}
        assert (recipe.train.epochs, recipe.train.batch_size) == (800, 512)
        optim = recipe.settings("optim")
        assert (optim["name"], optim["momentum"], optim["weight_decay"]) == ("sgd", 0.9, 5e-4)
        assert (optim["schedule"], optim["warmup_epochs"]) == ("cosine", 0)
        augment = recipe.settings("augment")
        assert augment["crop"]["scale"] == (0.08, 1.0)
        # Strength 0.5 is (0.4, 0.4, 0.4, 0.1).
        probabilities = {key: block["p"] for key, block in augment.items() if block and "p" in block}
        assert probabilities == {"flip": 0.5, "jitter": 0.8, "gray": 0.2, "blur": 0.5}
        assert augment["jitter"]["strength"] == 0.5
    assert simclr.optim.lr == 0.06
    assert simclr.settings("method") == {"name": "simclr", "temperature": 0.5, "projector": (512, 128)}
    assert twins.optim.lr == 0.11
    assert twins.settings("method") == {"name": "barlow_twins", "lambda": 5e-3, "projector": (2048, 2048, 2048)}


def test_each_method_has_its_recipe_on_shapes_and_the_sweep_of_all_methods_is_made_of_them() -> None:
    members = load_sweep("methods-shapes").members
    assert {member.axes["method"] for member in members} == set(method_names())
    for member in members:
        recipe = load_recipe(f"{member.axes['method']}-shapes", [f"seed={member.seed}"])
        assert recipe.settings("method")["name"] == member.axes["method"]
        assert recipe.fingerprint == member.recipe.fingerprint


def test_text_of_a_recipe() -> None:
    assert "name: simclr-cifar10\n" in read_recipe_text("simclr-cifar10")
    with pytest.raises(InputError, match="Did you mean 'quickstart'"):
        read_recipe_text("quickstrat")


def test_header() -> None:
    lines = ["# What: a thing", "#   that goes on: here", "# Time: 3 min", "# a remark", "#   of two lines"]
    text = "\n".join([*lines, "# Result:  x ", "name: y", "# Source: no"])
    assert book.read_header(text) == {"what": "a thing that goes on: here", "time": "3 min", "result": "x"}
    assert book.read_header("name: x\n# What: late") == {}


def test_listing_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.yaml").write_text("# What: B\nname: b\nbase: a\n")
    (tmp_path / "a.yaml").write_text("# Time: 1 s\nname: a\nbased_on: x\n")
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.setattr(files, "recipes_folder", lambda: tmp_path)
    book.list_recipes.cache_clear()
    try:
        found = [(listing.name, listing.kind, listing.summary, listing.time) for listing in list_recipes()]
        assert found == [("a", "recipe", "", "1 s"), ("b", "sweep", "B", "")]
        assert files.shipped_names("sweep") == ["b"]
    finally:
        monkeypatch.undo()
        book.list_recipes.cache_clear()


def test_the_installed_folder_is_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "cssl_cli"
    package.mkdir(parents=True)
    monkeypatch.setattr(files, "_PACKAGE", package)
    assert files.recipes_folder() == tmp_path / "site" / "recipes"
    (package / "recipes").mkdir()
    assert files.recipes_folder() == package / "recipes"


def test_the_reference_of_fields_is_up_to_date() -> None:
    assert (DOCS.parent / "recipe-fields.md").read_text(encoding="utf-8") == document(), (
        "run `python -m cssl_cli.recipe.reference > docs/recipe-fields.md`"
    )


def test_the_documentation_of_sweeps_holds_the_tables_of_their_fields() -> None:
    text = DOCS.read_text(encoding="utf-8")
    tables = {"a sweep": SweepFile, "`reference` of a sweep": Reference, CLAIM: Claim, LAUNCHER: Launcher}
    for title, block in tables.items():
        assert table(block, title) in text


def test_every_field_has_a_description() -> None:
    assert "| None |" not in document()


def test_the_examples_of_the_documentation_are_valid(tmp_path: Path) -> None:
    examples = [part.partition("```")[0] for part in DOCS.read_text(encoding="utf-8").split("```yaml\n")[1:]]
    loaded = []
    for number, example in enumerate(example for example in examples if example.startswith("name:")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(example)
        load = load_sweep if "\naxes:" in example else load_recipe
        loaded.append(load(str(path)).name)
    (reference,) = (example for example in examples if example.startswith("reference:"))
    assert Reference.model_validate(parse(reference, where="docs").value["reference"]).seeds == 3
    (claims,) = (example for example in examples if example.startswith("claims:"))
    assert [Claim.model_validate(claim).within for claim in parse(claims, where="docs").value["claims"]] == [
        None,
        "method",
    ]
    assert loaded == [
        "simclr-cifar10",
        "simclr-cifar10-gentle",
        "simclr-resnet50-224",
        "strengths",
        "quickstart-gentle",
        "random",
    ]
