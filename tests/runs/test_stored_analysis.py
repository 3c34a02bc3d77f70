"""Results that were changed by hand, with a checksum that fits: told by the field, before anything reads them."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.errors import DamagedError
from cssl_cli.runs.run_dir import ANALYSIS, PROBE, RunDir
from cssl_cli.runs.stored_analysis import require_analysis

GONE = object()


@pytest.fixture(scope="module")
def analysis(analyzed: Path) -> dict[str, Any]:
    return json.loads((analyzed / ANALYSIS).read_text())


def changed(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy with the entry at this place replaced, or gone."""
    content = copy.deepcopy(content)
    *outer, last = [int(key) if key.isdecimal() else key for key in place.split("/")]
    at: Any = content
    for key in outer:
        at = at[key]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return content


def test_an_analysis_as_it_is_written_is_right(analysis: dict[str, Any]) -> None:
    require_analysis(analysis)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("class_names", GONE, "class_names: field required"),
        ("loss_settings/batch_size", "64", "loss_settings.batch_size: input should be a valid integer"),
        ("settings/epsilons", [], "epsilons: list should have at least 1 item"),
        ("concentration/nowhere", {}, "concentration.nowhere"),
        ("trained/positive_pairs", [], "trained.positive_pairs: input should be a valid dictionary"),
        ("trained/positive_pairs/functions", 8, "trained.positive_pairs.functions: it has no value"),
        ("trained/positive_pairs/functions/num_images", GONE, "trained.positive_pairs.functions.num_images"),
        ("trained/positive_pairs/tau_dimension/value", "4", "tau_dimension.value: it is no number"),
        ("trained/positive_pairs/eigenvalues/value", 0.5, "eigenvalues.value: it is no list"),
        ("trained/positive_pairs/eigenvalues/value", [0.5], "eigenvalues.value: it has 1 entries and not"),
        ("trained/positive_pairs/eigenvalues/value/0", "x", "eigenvalues.value.0: it is no number"),
        ("trained/positive_pairs/eigenvalues/value/0", True, "eigenvalues.value.0: it is no number"),
        ("trained/positive_pairs/eigenvalues/value/0", float("nan"), "eigenvalues.value.0: it is no number"),
        ("trained/positive_pairs/eigenvalues/value/0", 10**400, "eigenvalues.value.0: it is no number"),
        ("trained/R_epsilon/curve/errs", GONE, "R_epsilon.curve.errs: field required"),
        ("trained/R_epsilon/curve/value", [0.1], "curve.value: it has 1 entries and not 2"),
        ("trained/R_epsilon/curve/interval", [0.1, 0.2], "curve.interval.0: it is no list"),
        ("trained/R_epsilon/curve/interval/0", [0.1], "curve.interval.0: it has 1 entries and not 2"),
        ("trained/R_epsilon/curve_by_views/value/0", None, "curve_by_views.value.0: it is no list"),
        ("trained/R_epsilon_bounds/more_views/value", {"many": [1, 1]}, "more_views.value: it is no mapping by share"),
        ("trained/alignment/per_class/value", [0.1], "alignment.per_class.value: it is no mapping by class"),
        ("trained/class_centers/inner_products/value/0", [1.0], "inner_products.value.0: it has 1 entries and not 10"),
        ("trained/class_centers/closest_pair/classes", "a", "closest_pair.classes: input should be a valid list"),
        ("untrained/spread/ratio", {"value": None, "reason": 3}, "untrained.spread.ratio.reason"),
        ("projector/population/error_bound/vacuous", "yes", "projector.population.error_bound.vacuous"),
        ("concentration/pixels/mean_sigma_low/value", {}, "concentration.pixels.mean_sigma_low.value: it is no list"),
    ],
)
def test_a_field_of_another_form_is_named(analysis: dict[str, Any], place: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        require_analysis(changed(analysis, place, value))


@pytest.mark.parametrize(
    "place", ["trained/positive_pairs", "trained/positive_pairs/in_sample", "projector", "untrained"]
)
def test_what_an_older_version_did_not_measure_may_be_missing(analysis: dict[str, Any], place: str) -> None:
    require_analysis(changed(analysis, place, GONE))


def test_what_this_version_does_not_know_is_not_looked_at(analysis: dict[str, Any]) -> None:
    require_analysis(changed(analysis, "trained/positive_pairs/newer", {"value": "?"}))
    require_analysis(changed(analysis, "trained/newest", {"quantity": 3}))


def test_control_encoders_are_looked_at_too(analysis: dict[str, Any]) -> None:
    own = {
        "hash": {"alignment": copy.deepcopy(analysis["trained"]["alignment"])},
        "class_aware": {"reason": "no labels"},
    }
    require_analysis(analysis | {"controls": own})
    broken = changed(analysis | {"controls": own}, "controls/hash/alignment/unbiased/value", [])
    with pytest.raises(ValueError, match=r"controls\.hash\.alignment\.unbiased\.value: it is no number"):
        require_analysis(broken)


def test_the_run_says_which_file_and_what_to_do(analyzed: Path, analysis: dict[str, Any], tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("environment.json", "status", PROBE, "encoder.safetensors"):
        (tmp_path / name).write_bytes((analyzed / name).read_bytes())
    run.write_json(ANALYSIS, analysis)
    assert run.latest_result(ANALYSIS) is not None
    run.write_json(ANALYSIS, changed(analysis, "trained/positive_pairs/eigenvalues/value", "high"))
    with pytest.raises(DamagedError, match=r"trained\.positive_pairs\.eigenvalues\.value: it is no list") as damaged:
        run.latest_result(ANALYSIS)
    assert damaged.value.remedy
    probe = json.loads((analyzed / PROBE).read_text())
    for place, value, said in (
        ("trained/linear/interval", GONE, "trained.linear.interval: field required"),
        ("pixels/knn/accuracy", "0.5", "pixels.knn.accuracy: input should be a valid number"),
        ("trained/knn/per_class", {}, "trained: the classifiers are of different classes"),
    ):
        run.write_json(PROBE, changed(probe, place, value))
        with pytest.raises(DamagedError, match=re.escape(said)):
            run.latest_result(PROBE)
