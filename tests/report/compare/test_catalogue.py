"""The catalogue of quantities: each is read from where the pipeline writes it, and is None where it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cssl_cli.errors import InputError
from cssl_cli.report.compare.catalogue import (
    ACCURACIES,
    BY_NAME,
    FIGURE_TERMS,
    LABELS,
    MAIN_TERMS,
    SIGNS,
    TERMS,
    accuracy_named,
    values_of,
)
from cssl_cli.sweep.run import MemberResult
from cssl_cli.theory.term import DISTANCES
from tests.support.synthetic_members import member

OF_FEATURES = {
    "alignment": 0.21,
    "mean_inner_product": 0.32,
    "closest_pair": 0.43,
    "R_epsilon": 0.54,
    "ratio": 6.5,
    "uniformity": -1.7,
    "rankme": 38.0,
    "intrinsic_dimension": 9.5,
    "cluster_learnability": 0.65,
    "best_probe_risk": 0.12,
    "probe_generalization": 0.23,
    "class_share": 0.12,
    "shared_information": 9.8,
    "label_energy": 0.24,
    "contexture_tau": 1.9,
    "trade_off": 0.83,
}
OF_RANKING = {"share": 0.034, "shared": 41.0, "about_class": 1.4}
OF_DISTANCES = {
    name: {
        "half": 0.5 + k,
        "whole": 0.1 + k,
        "relative": 0.6 + k,
        "ratio": 0.9 + k,
        "nearest": 0.2 + k,
        "trade": 1.3 + k,
        "meeting": 0.3 + k,
    }
    for k, name in zip((0.01, 0.02, 0.03, 0.04), DISTANCES, strict=True)
}


def test_every_quantity_comes_from_its_place() -> None:
    accuracies = {"linear": 0.61, "knn": 0.52, "nearest_center": 0.43}
    result = member("a", accuracies=accuracies, distances=OF_DISTANCES, **OF_FEATURES, **OF_RANKING)
    assert result.probe is not None
    for name, accuracy in accuracies.items():
        result.probe["trained"][name]["top_5"] = {"accuracy": accuracy + 0.3, "interval": [0, 1]}
    found = values_of(result)
    expected: dict[str, float | None] = {**accuracies, **OF_FEATURES, **OF_RANKING, "best_knn": None}
    for name, values in OF_DISTANCES.items():
        expected |= {
            f"one_minus_sigma_{name}": values["half"],
            f"one_minus_sigma_{name}_at_yardstick": values["whole"],
            f"one_minus_sigma_relative_{name}": values["relative"],
            f"within_over_between_{name}": values["ratio"],
            f"nearest_same_class_{name}": values["nearest"],
        }
    for encoder in ("untrained", "pixels"):
        expected |= {f"{encoder}_{name}": 0.25 for name in accuracies}
    expected |= {f"{name}_top_5": accuracy + 0.3 for name, accuracy in accuracies.items()}
    expected |= {"untrained_alignment": 0.21, "untrained_mean_inner_product": 0.32}
    expected["trade_off_pixels"] = OF_DISTANCES["pixels"]["trade"]
    expected["shared_views_pixels"] = OF_DISTANCES["pixels"]["meeting"]
    assert found == pytest.approx(expected)


def test_one_minus_sigma_is_the_share_outside_the_main_part_found_at_the_nearest_deltas() -> None:
    result = member("a", distances={"pixels": {}})
    assert result.analysis is not None
    result.analysis["settings"]["deltas"] = [0.3, 0.6, 0.9]
    curves = result.analysis["concentration"]["pixels"]
    curves["mean_sigma_low"]["value"], curves["mean_sigma_high"]["value"] = [0.1, 0.35, 0.8], [0.2, 0.5, 0.9]
    curves["sigma_relative"]["value"] = [0.0, 0.1, 0.45]
    found = values_of(result)
    assert found["one_minus_sigma_pixels"] == pytest.approx(1 - 0.35)
    assert found["one_minus_sigma_pixels_at_yardstick"] == pytest.approx(1 - 0.8)
    assert found["one_minus_sigma_relative_pixels"] == pytest.approx(1 - 0.45)


def test_there_is_no_relative_sigma_where_classes_are_no_distance_apart() -> None:
    result = member("a", distances={"pixels": {"relative": 0.25}})
    assert result.analysis is not None
    quantities = result.analysis["concentration"]["pixels"]
    for median, expected in ((0.3, 0.25), (0.0, None)):
        quantities["between_quantiles"] = {"value": {"0.5": median, "0.95": 0.4}}
        assert values_of(result)["one_minus_sigma_relative_pixels"] == expected


def test_what_is_not_there_is_none() -> None:
    whole = member("a", distances=OF_DISTANCES, **OF_FEATURES)
    assert set(values_of(replace(whole, probe=None, analysis=None, ranked=None)).values()) == {None}
    old = member("a", **OF_FEATURES)
    assert old.analysis is not None
    del old.analysis["concentration"], old.analysis["trained"]["effective_rank"], old.analysis["settings"]["deltas"]
    old.analysis["trained"]["R_epsilon"]["curve"] = {"value": None, "reason": "one view"}
    found = values_of(old)
    expected = OF_FEATURES | {"R_epsilon": None, "rankme": None}
    assert {term.name: found[term.name] for term in TERMS} == dict.fromkeys(SIGNS) | expected


def test_an_analysis_of_the_pipeline_has_every_term(analyzed: Path) -> None:
    probe, content = (json.loads((analyzed / name).read_text()) for name in ("probe.json", "analysis.json"))
    found = values_of(MemberResult(member("a").member, analyzed, probe, content, None))
    assert {name for name, value in found.items() if value is None} == {
        *("best_knn", "ratio"),
        *("class_share", "shared_information", "best_probe_risk", "probe_generalization"),  # of 50 images
        *OF_RANKING,  # by sweeps alone
        *("linear_top_5", "knn_top_5", "nearest_center_top_5"),  # of ten classes
    }
    assert "reason" in content["trained"]["spread"]["ratio"]  # hardly trained: its centres are not above their noise
    assert found["linear"] == probe["trained"]["linear"]["accuracy"]
    sigma = content["concentration"]["trained"]["mean_sigma_low"]["value"][content["settings"]["deltas"].index(0.5)]
    assert found["one_minus_sigma_trained"] == pytest.approx(1 - sigma, rel=1e-9)
    assert found["R_epsilon"] == content["trained"]["R_epsilon"]["curve"]["value"][1]  # of ε = 0.2 and 0.5


def test_best_knn_is_the_best_epoch_recorded(tmp_path: Path) -> None:
    result = member("a", path=tmp_path)
    accuracies = (0.31, 0.47, 0.44)
    lines = [json.dumps({"epoch": e, "step": 10 * e, "knn": a}) for e, a in enumerate(accuracies, start=1)]
    (tmp_path / "knn.jsonl").write_text("\n".join(lines))
    assert values_of(result)["best_knn"] == 0.47
    (tmp_path / "knn.jsonl").write_text("\n".join([*lines, '{"epoch": 4, "st']))
    assert values_of(result)["best_knn"] is None
    (tmp_path / "knn.jsonl").write_text('{"epoch": 1, "step": 10}')
    assert values_of(result)["best_knn"] is None


def test_labels_tell_quantities_apart_and_say_where_better_accuracies_are_expected() -> None:
    assert len(set(LABELS.values())) == len(ACCURACIES) + len(TERMS)
    arrows = {1: "↑", -1: "↓"}
    for term in TERMS:
        assert term.sign is not None
        assert term.label.endswith(arrows[term.sign])
        assert term.title.endswith(arrows[term.sign])
        assert term.best([1.0, 3.0, 2.0]) == (3.0 if term.sign > 0 else 1.0)
        assert len(term.label) <= 34, "longer names lose their middle in the figure"
    assert {term.name for term in MAIN_TERMS} < set(FIGURE_TERMS) < set(SIGNS)
    assert len(BY_NAME) == len(set(BY_NAME))
    assert (BY_NAME["linear"].shown(0.12345), BY_NAME["alignment"].shown(-0.001)) == ("12.3", "0.00")


def test_an_unknown_accuracy_is_refused_with_the_nearest() -> None:
    assert accuracy_named("best_knn").title == "best k-NN"
    with pytest.raises(InputError) as refused:
        accuracy_named("nearest_centre")
    assert refused.value.where == "--accuracy"
    assert "nearest_center" in str(refused.value)
    with pytest.raises(InputError):
        accuracy_named("alignment")
