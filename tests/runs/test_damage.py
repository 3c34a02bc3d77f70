"""What lies in a run directory, damaged: every flipped bit and every changed field is told, or changes nothing."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from cssl_cli.errors import CsslError, DamagedError
from cssl_cli.host import checksums
from cssl_cli.host.progress import Silent
from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.report.figures.figures import DRAWN_FROM
from cssl_cli.runs.analyze import analyze
from cssl_cli.runs.finished import open_finished
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.pretrain import _resume, pretrain
from cssl_cli.runs.probe import probe
from cssl_cli.runs.run_dir import (
    ANALYSIS,
    CHECKPOINT,
    ENCODER,
    ENVIRONMENT,
    EPOCH_KNN,
    METRICS,
    PROBE,
    PROJECTOR,
    RECIPE,
    STATUS,
    TRACE,
    RunDir,
)
from cssl_cli.runs.trainer import make_trainer
from cssl_cli.sweep.concentration import CONCENTRATION
from cssl_cli.sweep.results_index import INDEX
from tests.support.commands import QUICKLY_MEASURED
from tests.support.run_files import READERS, Told, refusal

FLIPS = 250  # of each file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    """A run directory with every kind of file, and its recipe."""
    folder = tmp_path_factory.mktemp("damage")
    (folder / "tiny.yaml").write_text(QUICKLY_MEASURED)
    changes = ["train.epochs=2", "data.num_train=64", "data.num_test=30", "train.batch_size=32", "analyze.every=1"]
    quick = ["probe.every=1", "analyze.num_images=30", "analyze.num_views=2", "analyze.distances=[trained]"]
    recipe = load_recipe(str(folder / "tiny.yaml"), [*changes, *quick, "analyze.bootstrap=5"])
    run = pretrain(recipe, out=folder, reporter=Silent())
    probe(run.path, reporter=Silent())
    analyze(run.path, reporter=Silent())
    run.write_json(DRAWN_FROM, {"figures": ["training"], "settings": {"num_views": 4}})
    run.write_json(INDEX, {"format": [4, 3], "lines": {"a": [[1, 2, 3], True, False, "v", [0.5, 0.25]]}}, indent=None)
    run.write_json(CONCENTRATION, {"sweep": "s", "rows": [{"row": "a", "seed": 0, "num_images": 30}]})
    return run.path, recipe


@pytest.fixture
def recipe(made: tuple[Path, Recipe]) -> Recipe:
    return made[1]


@pytest.fixture
def run(made: tuple[Path, Recipe], tmp_path: Path) -> RunDir:
    return RunDir(Path(shutil.copytree(made[0], tmp_path / "runs" / made[0].name)))


def without_checksums(run: RunDir) -> None:
    """As a version before checksums would have left it."""
    environment = json.loads(run.file(ENVIRONMENT).read_bytes())
    for name in (STATUS, PROBE, ANALYSIS):
        content = json.loads(run.file(name).read_bytes())
        run.file(name).write_text(
            json.dumps({k: v for k, v in content.items() if k not in ("checksum", "encoder_sha256")})
        )
    for name in (METRICS, TRACE, EPOCH_KNN):
        records = [json.loads(line) for line in run.file(name).read_text().splitlines()]
        records = [{key: value for key, value in record.items() if key != "checksum"} for record in records]
        run.file(name).write_text("".join(json.dumps(record) + "\n" for record in records))
    del environment["checksum"], environment["checksums"]
    run.file(ENVIRONMENT).write_text(json.dumps(environment))
    recipe = run.file(RECIPE).read_text().partition("# checksum")[0]
    run.file(RECIPE).write_text(recipe)
    checkpoint = torch.load(run.file(CHECKPOINT), weights_only=True)
    del checkpoint["fingerprint"]
    torch.save(checkpoint, run.file(CHECKPOINT))
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    for name in (ENCODER, PROJECTOR):
        with safe_open(run.file(name), "pt") as file:
            facts = json.loads(file.metadata()["cssl"])
        del facts["checksum"], facts["weights_sha256"]
        save_file(load_file(run.file(name)), run.file(name), {"cssl": json.dumps(facts)})


# ---------------------------------------------------------------------- bits
def places(size: int, generator: random.Random) -> set[int]:
    """Bytes of a file: many at its ends, where the checksums are, and some of all the rest."""
    ends = [*range(min(40, size)), *range(max(0, size - 100), size)]
    return {*ends, *(generator.randrange(size) for _ in range(FLIPS - len(ends)))}


@pytest.mark.parametrize("name", READERS)
def test_a_flipped_bit_is_told_with_the_file_and_a_remedy(run: RunDir, name: str) -> None:
    read, file = READERS[name], run.file(name)
    whole, generator = file.read_bytes(), random.Random(name)
    read(run)
    unnoticed = []
    for place in sorted(places(len(whole), generator)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        error = refusal(read, run)
        if error is None or error.where != str(file) or not error.remedy:
            unnoticed.append(place)
    assert unnoticed == []


@pytest.mark.parametrize("name", READERS)
def test_a_piece_that_is_missing_or_zeroed_is_told(run: RunDir, name: str) -> None:
    read, file = READERS[name], run.file(name)
    whole, generator = file.read_bytes(), random.Random(name)
    for _ in range(40):
        start, end = sorted(generator.sample(range(len(whole)), 2))
        for damaged in (whole[:start], whole[:start] + whole[end:], whole[:start] + bytes(end - start) + whole[end:]):
            file.write_bytes(damaged)
            with pytest.raises(DamagedError):
                read(run)


def test_a_file_of_another_run_is_told(run: RunDir, recipe: Recipe) -> None:
    other = recipe.model_copy(update={"seed": recipe.seed + 1})
    theirs = pretrain(other, out=run.path.parent / "other", reporter=Silent())
    for name in (ENCODER, PROJECTOR):
        with pytest.raises(DamagedError, match="of another run"):
            theirs.load_weights(name, fingerprint=recipe.fingerprint)
    shutil.copy(theirs.file(CHECKPOINT), run.file(CHECKPOINT))
    run.remove(STATUS)
    with pytest.raises(DamagedError, match=f"of another run.*{other.fingerprint}") as error:
        pretrain(recipe, out=run.path.parent, reporter=Silent())
    assert "--restart" in str(error.value)
    for name in (PROBE, ANALYSIS):
        shutil.copy(run.file(name), theirs.file(name))
        with pytest.raises(DamagedError, match="measured on another run"):
            theirs.read_result(name, recipe.settings("probe" if name == PROBE else "analyze"))


@pytest.mark.parametrize("key", ["fingerprint", "content_key", "encoder_sha256"])
def test_results_of_another_run_are_told_and_measured_again(run: RunDir, key: str) -> None:
    right = run.latest_result(PROBE) or {}
    run.write_json(PROBE, {**right, key: "0123456789", "trained": "copied"})
    told = Told()
    probe(run.path, reporter=told, again=False)
    assert [line for line in told.said if "measured on another" in line and str(run.file(PROBE)) in line]
    assert run.latest_result(PROBE) == right


def test_a_damaged_result_is_told_before_it_is_measured_again(run: RunDir) -> None:
    right = run.latest_result(ANALYSIS)
    text = run.file(ANALYSIS).read_text()
    place = text.index('"value": 0.') + len('"value": 0.')
    run.file(ANALYSIS).write_text(text[:place] + str(9 - int(text[place])) + text[place + 1 :])
    told = Told()
    analyze(run.path, reporter=told)
    assert run.latest_result(ANALYSIS) == right
    assert [line for line in told.said if str(run.file(ANALYSIS)) in line and "checksum" in line]


def test_weights_that_are_deleted_as_told_come_back_from_the_checkpoint(run: RunDir, recipe: Recipe) -> None:
    whole = {name: run.file(name).read_bytes() for name in (ENCODER, PROJECTOR)}
    run.file(ENCODER).write_bytes(whole[ENCODER][:-1] + b"\1")
    with pytest.raises(DamagedError, match="cssl pretrain") as error:
        probe(run.path, reporter=Silent())
    assert ENCODER in str(error.value.where)
    run.remove(ENCODER, PROJECTOR)
    pretrain(recipe, out=run.path.parent, reporter=Silent())
    assert {name: run.file(name).read_bytes() for name in (ENCODER, PROJECTOR)} == whole
    assert probe(run.path, reporter=Silent(), again=False) == run.latest_result(PROBE)


def test_a_damaged_status_is_told_and_the_run_goes_on_from_its_checkpoint(run: RunDir, recipe: Recipe) -> None:
    run.file(STATUS).write_bytes(run.file(STATUS).read_bytes().replace(b"4", b"5"))
    with pytest.raises(DamagedError, match="cssl pretrain"):
        probe(run.path, reporter=Silent())
    whole, told = run.file(ENCODER).read_bytes(), Told()
    assert pretrain(recipe, out=run.path.parent, reporter=told).finished
    assert [line for line in told.said if str(run.file(STATUS)) in line]
    assert run.file(ENCODER).read_bytes() == whole


def test_a_recipe_that_was_edited_is_told(run: RunDir, recipe: Recipe) -> None:
    text = run.file(RECIPE).read_text()
    run.file(RECIPE).write_text(text.replace("bootstrap: 5", "bootstrap: 6"))
    told = Told()
    _, found = open_finished(run.path, told)
    assert found.analyze.bootstrap == 6
    assert [line for line in told.said if str(run.file(RECIPE)) in line and "edited" in line]
    told = Told()
    pretrain(recipe, out=run.path.parent, reporter=told)
    assert [line for line in told.said if str(run.file(RECIPE)) in line and "written again" in line]
    assert run.file(RECIPE).read_text() == text
    run.file(RECIPE).write_text(text.replace("seed: 3", "seed: 4"))
    with pytest.raises(CsslError, match="another recipe"):
        open_finished(run.path, Silent())


# ---------------------------------------------------------------------- fields
MISSING = object()
CHANGES: tuple[Any, ...] = (None, MISSING, "text", 10**9, [], {}, -1, 1e308, True, [1], float("nan"))


def changed(content: Any, depth: int, changes: Sequence[Any] = CHANGES) -> Iterator[tuple[str, Any]]:
    """The content with each of its fields, down to a `depth`, replaced by each of the changes."""
    for key in list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        for change in changes:
            other = copy.copy(content)
            if change is MISSING:
                del other[key]
            else:
                other[key] = change
            yield f"{key}: {'missing' if change is MISSING else change!r}", other
        if depth > 1:
            for what, inner in changed(content[key], depth - 1, changes):
                other = copy.copy(content)
                other[key] = inner
                yield f"{key}.{what}", other


@pytest.mark.parametrize("name", [STATUS, ENVIRONMENT, METRICS, TRACE, EPOCH_KNN, PROBE, ANALYSIS])
def test_a_changed_field_is_told_where_there_is_a_checksum(run: RunDir, name: str) -> None:
    lines = run.file(name).read_text().splitlines() if name.endswith("jsonl") else [run.file(name).read_text()]
    content = json.loads(lines[0])
    for what, other in changed(content, depth=1, changes=CHANGES[:4]):
        run.file(name).write_text("\n".join([json.dumps(other), *lines[1:]]) + "\n")
        if json.dumps(other) != json.dumps(content):  # True for True
            assert isinstance(refusal(READERS[name], run), DamagedError), what


@pytest.mark.parametrize("name", [STATUS, ENVIRONMENT, METRICS, TRACE, EPOCH_KNN, PROBE, ANALYSIS])
def test_a_changed_field_of_a_file_without_a_checksum_is_no_bug(run: RunDir, recipe: Recipe, name: str) -> None:
    """Told, or a value that could be right."""
    from cssl_cli.report.run import show_pretrained
    from cssl_cli.runs.pretrain import check_recipe

    without_checksums(run)
    READERS[name](run)
    record = name.endswith("jsonl")
    text = run.file(name).read_text()
    content = json.loads(text.splitlines()[0] if record else text)

    def read(run: RunDir) -> None:
        READERS[name](run)
        check_recipe(run, recipe)
        if name in (PROBE, ANALYSIS):
            run.read_result(name, recipe.settings("probe" if name == PROBE else "analyze"))
        else:
            show_pretrained(run, as_json=False)

    small = name in (STATUS, ENVIRONMENT, METRICS)
    told = []
    for _, other in changed(content, 2 if small else 1, CHANGES if small else CHANGES[:4]):
        run.file(name).write_text(json.dumps(other) + ("\n" if record else ""))
        told.append(refusal(read, run) is not None)
    assert sum(told) > len(told) / 10


def test_a_checkpoint_whose_fields_changed_is_told(run: RunDir, recipe: Recipe) -> None:
    """Also without a checksum; never a step beyond the last, which would count as finished."""
    without_checksums(run)
    state = torch.load(run.file(CHECKPOINT), weights_only=True)
    dataset = prepare_data(recipe, Silent())
    trainer = make_trainer(recipe, dataset, torch.device("cpu"))
    required = {"metrics", "trainer", *(f"trainer.{key}" for key in state["trainer"])}
    for what, other in changed(state, depth=2, changes=CHANGES[:4]):
        field, _, change = what.rpartition(": ")
        torch.save(other, run.file(CHECKPOINT))
        error = refusal(lambda run: _resume(run, recipe, trainer, Silent()), run)
        if error is None:
            assert 0 <= trainer.step <= trainer.plan.num_steps, what
            assert field not in required or change in ("[]", "{}"), what
        else:
            assert "--restart" in str(error), what


# ---------------------------------------------------------------------- of before
def test_a_run_of_before_there_were_checksums_is_read_and_that_is_said(run: RunDir, recipe: Recipe) -> None:
    without_checksums(run)
    told = Told()
    before = json.loads(run.file(PROBE).read_bytes())
    assert probe(run.path, reporter=told, again=False) == before
    assert [line for line in told.said if "no checksums" in line and str(run.path) in line]
    run.remove(STATUS, ENCODER, PROJECTOR)
    assert pretrain(recipe, out=run.path.parent, reporter=Silent()).finished
    assert probe(run.path, reporter=Silent(), again=False) == before
    run.write_json(ENVIRONMENT, {**(run.environment() or {}), "checksums": True})
    with pytest.raises(DamagedError, match="checksum is missing"):
        run.latest_result(PROBE)


def test_the_encoder_loads_without_us(run: RunDir) -> None:
    from safetensors.torch import load_file

    ours = run.load_weights(ENCODER)
    plain = load_file(run.file(ENCODER))
    assert plain.keys() == ours.keys()
    assert all(torch.equal(plain[name], ours[name]) for name in ours)
    assert torch.load(run.file(CHECKPOINT), weights_only=True)["trainer"]["step"] == 4


def test_a_checksum_is_that_of_the_file_with_its_digits_as_zeros() -> None:
    import hashlib

    text = b'{\n  "checksum": "' + checksums.BLANK.encode() + b'"\n}\n'
    sealed = checksums.seal(text)
    assert hashlib.sha256(text).hexdigest().encode() in sealed
    assert len(sealed) == len(text)


def test_a_seal_survives_what_looks_like_one(tmp_path: Path) -> None:
    folder = SealedFolder(tmp_path)
    content = {"checksum": "x", "note": "sha256: of a checksum", "last": checksums.BLANK}
    folder.write_json("a.json", content)
    assert folder.read_json("a.json") == {key: content[key] for key in ("note", "last")}
