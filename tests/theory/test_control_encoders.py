"""Control encoders: what a hash and a class-aware encoder measure, and which terms are said to be fooled by them."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cssl_cli.features.geometry import unit_norm
from cssl_cli.report import control_encoders
from cssl_cli.report.compare.catalogue import SIGNS
from cssl_cli.report.control_encoders import BY_NAME, DIRECTED, HELD_OUT, compare_controls, fooled_in
from cssl_cli.report.control_table import fooled_lines, print_controls
from cssl_cli.report.layout import console
from cssl_cli.theory import control_encoders as made
from cssl_cli.theory.analysis import Absent, LossSettings, analyze_table
from cssl_cli.theory.control_encoders import CLASS_AWARE, HASH, HASH_NOISE, class_noise, control_features
from tests.support.commands import QUICKLY_MEASURED, Invoke

NUM_CLASSES, OF_EACH, VIEWS, WIDTH = 10, 100, 4, 128
SETTINGS = {"epsilons": [0.5], "deltas": [0.5]}


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encoded(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (N, V, D) like those of a trained encoder, and labels: classes overlap, few directions matter."""
    generator = stream(seed)
    labels = torch.arange(NUM_CLASSES).repeat_interleave(OF_EACH)
    spectrum = 1 / torch.arange(1, WIDTH + 1)
    spectrum /= spectrum.norm()
    centers = math.sqrt(WIDTH) * unit_norm(torch.randn(NUM_CLASSES, WIDTH, generator=generator)) * spectrum
    images = torch.randn(len(labels), 1, WIDTH, generator=generator) * spectrum
    views = 0.3 * torch.randn(len(labels), VIEWS, WIDTH, generator=generator) * spectrum
    return centers[labels].unsqueeze(1) + images + views, labels


def controls(features: Tensor, labels: Tensor | None, seed: int = 1) -> dict[str, Any]:
    return control_features(features, labels, num_classes=NUM_CLASSES, generator=stream(seed))


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """An analysis, as far as the controls are concerned, of 10 × 100 images."""
    features, labels = encoded()
    wanted = {directed.term for directed in (HELD_OUT, *DIRECTED)} - {"chaos"}

    def terms(table: Tensor) -> dict[str, Any]:
        found = analyze_table(
            unit_norm(table.double()),
            labels,
            class_names=[str(label) for label in range(NUM_CLASSES)],
            epsilons=SETTINGS["epsilons"],
            bootstrap=20,
            loss=LossSettings(0.5, 256),
            generator=stream(2),
            raw=table,
            only=wanted,
        )
        return {term: {name: one.to_dict() for name, one in of.items()} for term, of in found.items()}

    return {
        "settings": SETTINGS,
        "trained": terms(features),
        "controls": {name: terms(table) for name, table in controls(features, labels).items()},
    }


def verdicts(result: Any, control: str) -> dict[str, str | None]:
    compared = compare_controls(result)
    assert compared is not None
    return {entry["term"]: entry["verdict"] for entry in compared[control]["terms"]}


# ---------------------------------------------------------------------- what they measure
def test_the_hash_wins_on_most_terms_with_the_accuracy_of_chance(measured: dict[str, Any]) -> None:
    low, high = measured["controls"][HASH]["population"]["error"]["interval"]
    assert low <= 1 - 1 / NUM_CLASSES <= high
    assert measured["trained"]["population"]["error"]["value"] < 0.5
    found = verdicts(measured, HASH)
    fooled = {"alignment", "R_epsilon", "uniformity", "rankme", "lidar", "nt_xent", "info_nce", "redundancy_loss"}
    assert {term for term in found if found[term] == "fooled"} >= fooled
    assert {found[term] for term in ("ratio", "nc1", "plain_ratio", "cdnv", "in_table_error")} == {"not"}
    assert {found[term] for term in ("class_share", "shared_information", "label_energy", "contexture_tau")} == {"not"}


def test_the_class_aware_control_classifies_what_most_terms_like_less(measured: dict[str, Any]) -> None:
    assert measured["controls"][CLASS_AWARE]["population"]["error"]["value"] < 0.01
    found = verdicts(measured, CLASS_AWARE)
    assert {found[term] for term in ("alignment", "R_epsilon", "nt_xent", "info_nce")} == {"fooled"}
    assert {found[term] for term in ("ratio", "mean_inner_product", "closest_pair")} == {"not"}
    assert {found[term] for term in ("class_share", "shared_information", "label_energy")} == {"not"}


def test_measures_of_the_controls_have_their_closed_forms(measured: dict[str, Any]) -> None:
    """For random directions of many dimensions, and n_k images of a class whose labels mean nothing."""

    def value(control: str, term: str, name: str) -> float:
        return float(measured["controls"][control][term][name]["value"])

    for control, noise in ((HASH, HASH_NOISE), (CLASS_AWARE, class_noise(WIDTH))):
        assert value(control, "alignment", "unbiased") == pytest.approx(2 - 2 / (1 + noise**2), rel=0.02)
    collapse = {"nc1": OF_EACH * (NUM_CLASSES - 1) / WIDTH, "cdnv": OF_EACH / 2, "ratio": OF_EACH / 0.9}
    for name, expected in collapse.items():
        assert value(HASH, "neural_collapse", name) == pytest.approx(expected, rel=0.2)
    assert value(HASH, "class_centers", "mean_inner_product") == pytest.approx(0, abs=0.003)
    assert value(HASH, "uniformity", "uniformity") == pytest.approx(-4 + 8 / WIDTH, abs=0.02)


# ---------------------------------------------------------------------- how they are made
def test_controls_have_the_length_of_the_encoder_and_the_same_shape() -> None:
    features, labels = encoded()
    length = features.square().sum(dim=2).mean().sqrt()
    for table in controls(features, labels).values():
        assert table.shape == features.shape
        assert torch.allclose(table.norm(dim=2), length.expand(table.shape[:2]), rtol=1e-5)


def test_the_hash_is_blind_to_classes_and_the_other_to_images() -> None:
    features, labels = encoded()
    one, other = controls(features, labels), controls(features, labels.flip(0))
    assert torch.equal(one[HASH], other[HASH])
    assert not torch.equal(one[CLASS_AWARE], other[CLASS_AWARE])
    assert torch.equal(one[CLASS_AWARE], controls(features, labels)[CLASS_AWARE])
    assert not torch.equal(one[HASH], controls(features, labels, seed=2)[HASH])
    # Two images of a class are as far apart as two views of an image.
    table = unit_norm(one[CLASS_AWARE])
    of_an_image = (table[:, 0] - table[:, 1]).square().sum(dim=1).mean().item()
    of_a_class = (table[0::2, 0] - table[1::2, 1]).square().sum(dim=1).mean().item()
    assert of_a_class == pytest.approx(of_an_image, rel=0.02)


def test_without_labels_there_is_only_the_hash() -> None:
    features, labels = encoded()
    found = controls(features, None)
    assert found[CLASS_AWARE] == Absent("the images have no labels")
    assert torch.equal(found[HASH], controls(features, labels)[HASH])


@pytest.mark.parametrize("width", [16, 64, 512])
def test_the_noise_is_as_wide_as_nearest_centres_can_bear(width: int) -> None:
    labels = torch.arange(NUM_CLASSES).repeat_interleave(60)
    table = controls(torch.ones(len(labels), 6, width), labels)[CLASS_AWARE].double()
    centers = torch.stack([table[labels == label][:30].mean(dim=(0, 1)) for label in range(NUM_CLASSES)])
    nearest = torch.cdist(table[:, 0], centers).argmin(dim=1)
    assert (nearest != labels).double().mean() < 0.01
    assert class_noise(width) == pytest.approx(min(2, math.sqrt(width / 32)))


def test_more_classes_than_dimensions_have_a_direction_each() -> None:
    labels = torch.arange(40)
    table = control_features(torch.ones(40, 3, 8), labels, num_classes=40, generator=stream(0))[CLASS_AWARE]
    assert isinstance(table, Tensor)
    assert torch.isfinite(table).all()


# ---------------------------------------------------------------------- verdicts
def quantity(value: Any, interval: Any = None) -> dict[str, Any]:
    return {"value": value, "interval": interval}


def analysis(trained: dict[str, Any], control: dict[str, Any], *, errors: tuple[Any, Any]) -> dict[str, Any]:
    """Both controls measure the same."""

    def terms(error: Any, of: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"population": {"error": error}}
        for name, entry in of.items():
            directed = BY_NAME[name]
            found.setdefault(directed.term, {})[directed.quantity] = entry
        return found

    return {
        "settings": SETTINGS,
        "trained": terms(errors[0], trained),
        "controls": dict.fromkeys((HASH, CLASS_AWARE), terms(errors[1], control)),
    }


WORSE, BETTER = quantity(0.9, [0.8, 0.95]), quantity(0.4, [0.3, 0.5])


@pytest.mark.parametrize(
    ("trained", "control", "expected"),
    [
        (quantity(0.5), quantity(0.4), "fooled"),
        (quantity(0.5), quantity(0.6), "not"),
        (quantity(0.5), quantity(0.5 + 1e-14), "not"),
        (quantity(0.5, [0.45, 0.55]), quantity(0.4, [0.35, 0.44]), "fooled"),
        (quantity(0.5, [0.45, 0.55]), quantity(0.4, [0.35, 0.46]), "undecided"),
        (quantity(0.5, [0.45, 0.55]), quantity(0.46), "undecided"),
        (quantity(0.5, [0.45, 0.55]), quantity(0.54), "undecided"),
        (quantity(0.5, [0.45, 0.55]), quantity(0.56), "not"),
        (quantity(None), quantity(0.56), None),
        (quantity(0.5), quantity(None), None),
    ],
)
def test_a_term_is_fooled_by_a_worse_encoder_that_it_prefers(trained: Any, control: Any, expected: str | None) -> None:
    result = analysis({"alignment": trained}, {"alignment": control}, errors=(BETTER, WORSE))
    assert verdicts(result, HASH)["alignment"] == expected
    assert set(verdicts(result, CLASS_AWARE).values()) == {None}  # it classifies worse here, and is to do better
    mirrored = analysis({"alignment": control}, {"alignment": trained}, errors=(WORSE, BETTER))
    assert verdicts(mirrored, CLASS_AWARE)["alignment"] == expected
    assert set(verdicts(mirrored, HASH).values()) == {None}
    upwards = [{"rankme": {**one, "value": one["value"] and -one["value"]}} for one in (trained, control)]
    for one in upwards:
        one["rankme"]["interval"] = one["rankme"]["interval"] and [-end for end in one["rankme"]["interval"][::-1]]
    assert verdicts(analysis(*upwards, errors=(BETTER, WORSE)), HASH)["rankme"] == expected


@pytest.mark.parametrize("errors", [(quantity(None), quantity(None)), (quantity(0.82, [0.79, 0.85]), WORSE)])
def test_errors_within_their_intervals_make_no_verdicts(errors: tuple[Any, Any]) -> None:
    result = analysis({"alignment": quantity(0.5)}, {"alignment": quantity(0.4)}, errors=errors)
    assert fooled_in(result) == {HASH: {}, CLASS_AWARE: {}}


def test_a_spread_ratio_that_is_lost_in_noise_sees_the_control() -> None:
    def spread(within: float, between: float) -> dict[str, Any]:
        absent = {"value": None, "reason": "noise"}
        return {"spread": {"ratio": absent, "within": quantity(within), "between": quantity(between)}}

    result = analysis({"ratio": quantity(30.0, [20, 40])}, {}, errors=(BETTER, WORSE))
    result["controls"][HASH] |= spread(1.0, -0.001)
    assert verdicts(result, HASH)["ratio"] == "not"
    result["controls"][HASH] |= spread(-0.001, 0.2)
    assert verdicts(result, HASH)["ratio"] == "fooled"
    result["controls"][HASH] |= spread(-0.001, -0.001)
    assert verdicts(result, HASH)["ratio"] is None


def test_the_share_outside_the_main_part_is_one_less_sigma() -> None:
    result = analysis({}, {}, errors=(BETTER, WORSE))
    result["concentration"] = {"trained": {"mean_sigma_low": quantity([0.3], [[0.2, 0.4]])}}
    result["controls"][HASH]["concentration"] = {"mean_sigma_low": quantity([0.5], [[0.45, 0.55]])}
    compared = compare_controls(result)
    assert compared is not None
    (entry,) = [one for one in compared[HASH]["terms"] if one["term"] == "one_minus_sigma_trained"]
    assert (entry["trained"], entry["control"], entry["verdict"]) == (0.7, 0.5, "fooled")


def test_directions_are_those_of_the_catalogue() -> None:
    common = {directed.name: directed.sign for directed in DIRECTED if directed.name in SIGNS}
    assert {"alignment", "R_epsilon", "ratio", "uniformity", "rankme", "one_minus_sigma_trained"} <= set(common)
    assert common == {name: SIGNS[name] for name in common}
    assert (control_encoders.HASH, control_encoders.CLASS_AWARE) == (made.HASH, made.CLASS_AWARE)


# ---------------------------------------------------------------------- in words
Printed = Callable[[Any], str]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Printed:
    monkeypatch.setenv("COLUMNS", "80")

    def show(result: Any) -> str:
        capfd.readouterr()
        print_controls(console(), result)
        return capfd.readouterr().out

    return show


def test_the_table_marks_what_is_fooled(measured: dict[str, Any], printed: Printed) -> None:
    text = printed(measured)
    assert max(map(len, text.splitlines())) <= 80
    rows = {line.split("  ")[0].strip(): line.rstrip() for line in text.splitlines() if line.strip()}
    assert rows["alignment ↓"].endswith("both")
    assert rows["RankMe ↑"].endswith(" hash")
    assert rows["within / between ↓"].split("/")[1].split()[-1][-1].isdigit() or "∞" in rows["within / between ↓"]
    assert "R_ε at ε = 0.5, % ↓" in text
    assert "within them" not in text
    close = copy.deepcopy(measured)
    close["trained"]["alignment"]["unbiased"]["interval"] = [0.0, 1.9]
    assert "hash?, class-aware?" in printed(close)
    assert "?: within them." in " ".join(printed(close).split())


def test_the_table_says_why_there_is_no_verdict(printed: Printed) -> None:
    result = analysis({"alignment": quantity(0.5)}, {"alignment": quantity(0.4)}, errors=(WORSE, WORSE))
    result["controls"][CLASS_AWARE] = {"reason": "the images have no labels"}
    text = " ".join(printed(result).split())
    assert "hash: no verdicts, since its held-out error is not above the trained encoder's" in text
    assert "No class-aware control: the images have no labels." in text
    assert printed({**result, "controls": {}}) == ""


def test_many_runs_are_counted() -> None:
    fooled, seen, open_ = ({"alignment": one} for one in ("fooled", "not", "undecided"))
    (line,) = fooled_lines([{HASH: fooled | {"nc1": "not"}}, {HASH: fooled | {"nc1": "undecided"}}, {}])
    assert line == "hash (2 runs) fools: alignment; not: NC1."
    (line,) = fooled_lines([{HASH: fooled}, {HASH: seen}, {HASH: {}}])
    assert line == "hash (2 runs) in some runs: alignment (1 of 2)."
    assert list(fooled_lines([{CLASS_AWARE: open_}])) == ["class-aware (1 run) undecided: alignment."]
    (line,) = fooled_lines([{HASH: {}}, {HASH: {}}])
    assert line.startswith("hash: no verdicts in 2 runs, since its held-out error is not above the trained encoder's")
    assert list(fooled_lines([{}, {}])) == []


# ---------------------------------------------------------------------- on the command line
LOST_IN_50_IMAGES = ("ratio", "class_share", "shared_information", "best_probe_risk", "probe_generalization")


def test_a_run_is_measured_with_controls_where_that_is_asked_for(
    invoke: Invoke, analyzed: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(analyzed, tmp_path / "runs" / analyzed.name))
    asked = ("analyze", run, "--no-figures")
    plain = json.loads(invoke(*asked, "--json").stdout)
    assert not {"controls", "fooled"} & set(plain)
    shown = invoke(*asked, "--controls")
    assert shown.code == 0, shown.stderr
    assert "Control encoders, made without training" in shown.stdout
    content = json.loads((run / "analysis.json").read_text())
    assert content["settings"]["controls"] is True
    for directed in (HELD_OUT, *DIRECTED):  # a term that is renamed would drop out of the table
        for control in (HASH, CLASS_AWARE):
            there = directed.pair(content, control)
            assert there[0] is not None or directed.name in LOST_IN_50_IMAGES, directed.name
            assert there[1] is not None or directed.name in LOST_IN_50_IMAGES, directed.name
    as_json = json.loads(invoke(*asked, "--controls", "--json").stdout)
    assert as_json["fooled"] == compare_controls(content)
    assert {"trained": plain["trained"], "projector": plain["projector"]} == {
        name: content[name] for name in ("trained", "projector")
    }  # controls change nothing else
    assert "Control encoders" not in invoke(*asked).stdout


def test_a_recipe_has_no_encoder_to_set_beside_controls(invoke: Invoke, tiny_recipe: Path) -> None:
    refused = invoke("analyze", tiny_recipe, "--controls")
    assert refused.code == 2
    assert "--controls: a recipe without a run has no encoder to set beside the controls" in refused.stderr


def test_a_sweep_says_what_controls_fool(invoke: Invoke, tmp_path: Path) -> None:
    quick = QUICKLY_MEASURED.replace("[pixels, trained]", "[trained]")
    quick = quick.replace("num_images: 16, classes: [bar, cross, ring, square]", "num_images: 30")
    (tmp_path / "tiny.yaml").write_text(quick.replace("bootstrap: 20", "bootstrap: 20, controls: true"))
    (tmp_path / "two.yaml").write_text("name: two\nbase: tiny.yaml\nseeds: 2\n")
    ran = invoke("sweep", "two.yaml", "train.epochs=1", "--no-figures")
    assert ran.code == 0, ran.stderr
    read = invoke("sweep", "two.yaml", "train.epochs=1", "--report")  # from the index
    for outcome in (ran, read):
        assert "Control encoders, made without training" in outcome.stdout
        assert "class-aware (2 runs) fools: " in outcome.stdout
    content = json.loads((tmp_path / "runs" / "two" / "table.json").read_text())
    for entry in content["members"]:
        stored = json.loads((tmp_path / entry["run"] / "analysis.json").read_text())
        assert entry["fooled"] == fooled_in(stored)
    runs = [tmp_path / entry["run"] for entry in content["members"]]
    several = invoke("analyze", *runs, "--no-figures")
    assert "class-aware (2 runs) fools: " in several.stdout
