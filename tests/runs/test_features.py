"""Features from elsewhere: known values, the way back of an export, and what is absent and why."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cssl_cli.errors import InputError
from cssl_cli.features.arrays import FeatureArrays, check_arrays
from cssl_cli.features.files import write_features
from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.recipe.measurement import load_measurement
from cssl_cli.runs import features as measured_features
from cssl_cli.runs.analyze import analyze
from cssl_cli.runs.features import analyze_features, load_features, probe_features
from cssl_cli.runs.pretrain import pretrain
from tests.support.commands import QUICKLY_MEASURED
from tests.support.image_folders import write

QUICK = ("analyze.bootstrap=0", "analyze.deltas=[0.5, 1.0]", "analyze.epsilons=[0.2, 0.5]")
ANGLE = 0.3


class Told(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def analysis(
    arrays: FeatureArrays, *overrides: str, reporter: Silent | None = None, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    measurement = load_measurement(arrays.settings, (*QUICK, *overrides), where="f.npz", changes=changes)
    return json.loads(json.dumps(analyze_features(arrays, measurement, reporter=reporter or Silent()), allow_nan=False))


def cones(num_classes: int = 4, per_class: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Clean images of class k at the axis e_k, and two views at `ANGLE` from it on either side, of any lengths."""
    labels = np.repeat(np.arange(num_classes), per_class)
    axes = np.eye(num_classes + 1)
    clean, aside = axes[labels], math.sin(ANGLE) * axes[-1]
    views = np.stack([clean, math.cos(ANGLE) * clean + aside, math.cos(ANGLE) * clean - aside], axis=1)
    lengths = np.random.default_rng(0).uniform(1, 3, (*views.shape[:2], 1))
    return views * lengths, labels


def arrays_of(features: Any, labels: Any = None, **others: Any) -> FeatureArrays:
    return check_arrays({"features": features, "labels": labels, **others}, where="f.npz")


# ---------------------------------------------------------------------- known values
@pytest.fixture(scope="module")
def of_cones() -> dict[str, Any]:
    return analysis(arrays_of(*cones()))


def test_terms_of_features_whose_terms_are_known(of_cones: dict[str, Any]) -> None:
    terms = of_cones["trained"]
    assert terms["alignment"]["unbiased"]["value"] == pytest.approx(4 * math.sin(ANGLE) ** 2, abs=1e-12)
    assert terms["R_epsilon"]["curve"]["value"] == [1.0, float(2 * math.sin(ANGLE) > 0.5)]
    assert terms["class_centers"]["inner_products"]["value"] == [
        [pytest.approx(math.cos(ANGLE) ** 2 if k == l else 0, abs=1e-12) for l in range(4)] for k in range(4)
    ]
    assert terms["class_centers"]["closest_pair"]["value"] == pytest.approx(math.sqrt(2) * math.cos(ANGLE), abs=1e-12)
    assert terms["population"]["error"]["value"] == 0


def test_companions_of_one_vector_an_image() -> None:
    labels = np.repeat(np.arange(4), 25)
    found = analysis(arrays_of(np.eye(4)[labels], labels))
    terms = found["trained"]
    assert found["settings"]["num_views"] == 1
    assert terms["effective_rank"]["rankme"]["value"] == pytest.approx(4, rel=1e-4)
    assert terms["uniformity"]["uniformity"]["value"] == pytest.approx(math.log(1 / 4 + 3 / 4 * math.exp(-4)), abs=1e-9)
    for term, quantity in (("alignment", "unbiased"), ("class_centers", "mean_inner_product"), ("lidar", "lidar")):
        assert terms[term][quantity]["value"] is None
        assert "view" in terms[term][quantity]["reason"]


def test_without_labels_only_what_needs_classes_is_absent() -> None:
    features, _ = cones()
    found = analysis(arrays_of(features))
    assert found["class_names"] is None
    assert found["trained"]["alignment"]["unbiased"]["value"] == pytest.approx(4 * math.sin(ANGLE) ** 2, abs=1e-12)
    assert found["trained"]["uniformity"]["uniformity"]["value"] < 0
    assert found["trained"]["effective_rank"]["rankme"]["value"] > 1
    assert found["trained"]["class_centers"]["mean_inner_product"] == {
        "value": None,
        "reason": "the images have no labels",
    }


def test_what_the_file_lacks_is_absent_with_a_reason(of_cones: dict[str, Any]) -> None:
    untrained = "the file has no features of the untrained encoder (an array untrained)"
    assert of_cones["untrained"] == {"reason": untrained}
    assert of_cones["projector"] == {"reason": "the file has no features of the projector (an array projector)"}
    no_images = "this needs the images, and a file of features has none"
    for distance, reason in (("pixels", no_images), ("standardized_pixels", no_images), ("untrained", untrained)):
        quantities = of_cones["concentration"][distance]
        assert "mean_sigma_low" in quantities
        assert all(entry == {"value": None, "reason": reason} for entry in quantities.values())
    assert of_cones["concentration"]["trained"]["mean_sigma_low"]["value"] is not None
    assert len(of_cones["trained"]["lipschitz"]) == 6
    assert all(entry == {"value": None, "reason": no_images} for entry in of_cones["trained"]["lipschitz"].values())
    assert of_cones["trained"]["chaos"]["arc"]["value"] is None


def test_the_untrained_encoder_is_what_others_are_compared_with() -> None:
    features, _ = cones()
    whole = analysis(arrays_of(features, untrained=np.random.default_rng(0).standard_normal(features.shape)))
    assert whole["trained"]["chaos"]["arc"]["value"] == 0  # the images of a class coincide: all are confused
    assert whole["untrained"]["alignment"]["unbiased"]["value"] == pytest.approx(2, abs=0.3)


# ---------------------------------------------------------------------- which images and views
def test_images_views_and_classes_are_chosen_as_for_a_run() -> None:
    features, labels = cones(per_class=8)
    whole = arrays_of(features, labels, class_names=["a", "b", "c", "d", "empty"])
    told = Told()
    found = analysis(whole, reporter=told, changes={"num_images": 12, "num_views": 2, "classes": ("d", "b")})
    assert found["class_names"] == ["b", "d"]
    assert found["num_images"] == 12
    assert found["settings"]["num_views"] == 2
    assert found["projection"]["labels"].count(0) == 6
    assert told.said == ["measured on 12 of 16 images, as many of each class; --images N takes another number"]
    rows = (labels == 1) | (labels == 3)
    alone = analysis(arrays_of(features[rows, :2], np.array(list("abcd"))[labels[rows]]), changes={"num_images": 12})
    assert found["trained"] == alone["trained"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_views": 4}, "analyze.num_views: 4 views, and there are 3 of each image"),
        ({"num_images": 3}, "analyze.num_images: a limit of 3 leaves some of the 4 classes empty"),
        ({"classes": ("0", "7")}, "analyze.classes: unknown class '7'"),
    ],
)
def test_settings_that_the_features_cannot_meet(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        analysis(arrays_of(*cones()), changes=changes)
    assert words in str(refused.value)


def test_the_temperature_of_the_losses_is_a_setting(of_cones: dict[str, Any]) -> None:
    plain, cold = of_cones, analysis(arrays_of(*cones()), "method.temperature=0.1")
    assert plain["loss_settings"] == {"temperature": 0.5, "batch_size": 512, "of_the_method": None}
    assert cold["loss_settings"] == {"temperature": 0.1, "batch_size": 512, "of_the_method": True}
    assert plain["trained"]["nt_xent"]["loss"]["value"] != cold["trained"]["nt_xent"]["loss"]["value"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["analyze.bootstap=3"], "did you mean analyze.bootstrap?"),
        (["analyze.bootstrap=-1"], "(override 'analyze.bootstrap=-1') is -1; must be a whole number"),
        (["augment.crop={}"], "is not a field. Known: seed, method, train, probe, analyze"),
        (["train.epochs=3"], "is not a field. Known: batch_size"),
        (["method.temperature=0", "seed=-1"], "2 faults"),
        (["analyze.every=5"], "analyze.every changes nothing for features: there is no training"),
        (["probe={center_views: 2}"], "probe.center_views changes nothing for features"),
    ],
)
def test_settings_are_checked(overrides: Sequence[str], words: str) -> None:
    with pytest.raises(InputError) as refused:
        load_measurement({}, overrides, where="f.npz")
    assert words in str(refused.value)


def test_a_fault_in_stored_settings_names_the_file() -> None:
    with pytest.raises(InputError, match=r'f\.npz: analyze\.bootstrap is "many"; must be'):
        load_measurement({"analyze": {"bootstrap": "many"}}, [], where="f.npz")


def test_memory_is_asked_for_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_features.memory, "free_memory", lambda: 1000.0)
    with pytest.raises(InputError, match="does not fit in memory"):
        analysis(arrays_of(*cones()))


# ---------------------------------------------------------------------- there and back
def numbers(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from numbers(value, f"{path}.{key}")
    elif isinstance(content, list):
        for place, value in enumerate(content):
            yield from numbers(value, f"{path}[{place}]")
    else:
        yield path, content


def needs_pixels(path: str) -> bool:
    return ".lipschitz." in path or ".theorem_1.pixel_" in path or "pixels." in path


@pytest.mark.parametrize("labelled", [True, False])
def test_an_export_gives_the_same_numbers_again(tmp_path: Path, labelled: bool) -> None:
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED)
    overrides = ["train.epochs=1", "analyze.distances=[pixels, untrained, trained]", "analyze.controls=true"]
    if labelled:
        overrides += ["analyze.classes=[circle, square, star]", "analyze.num_images=15"]
    else:
        for number in range(30):
            write(tmp_path / "images" / f"{number:02}.png", number)
        overrides += [f"data={{name: folder, root: {tmp_path / 'images'}, size: 8}}", "train.batch_size=16"]
        overrides += ["analyze.classes=null"]
    run = pretrain(load_recipe(str(tmp_path / "tiny.yaml"), overrides), out=tmp_path, reporter=Silent())
    before = json.loads(json.dumps(analyze(run.path, reporter=Silent(), export=tmp_path / "f.npz")))
    arrays = load_features(tmp_path / "f.npz", Silent(), training=False)
    measurement = load_measurement(arrays.settings, [], where="f.npz")
    after = json.loads(json.dumps(analyze_features(arrays, measurement, reporter=Silent())))
    of_run = {key: before.pop(key) for key in ("fingerprint", "content_key", "encoder_sha256")}
    assert {key: after["exported_from"][key] for key in of_run} == of_run
    there = {path: value for path, value in numbers(before) if not needs_pixels(path)}
    back = dict(numbers(after))
    assert sum(isinstance(value, float) for value in there.values()) > (600 if labelled else 300)
    for path, value in there.items():
        assert back[path] == (pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value), path
    pixels = [path for path, _ in numbers(before) if needs_pixels(path) and path.endswith(".value")]
    assert pixels
    assert all(back.get(path) is None for path in pixels)


def test_the_precision_of_exported_features_is_told(tmp_path: Path) -> None:
    error = {"trained": {"of_length": 0.01, "largest": 0.02, "of_spread": None, "num_views": 72}}
    features, _ = cones()
    about = {"part": "test", "precision": "bfloat16", "feature_error": error, "unknown": math.nan}
    write_features(tmp_path / "f.npz", replace(arrays_of(features), about=about), precision="bfloat16")
    found = analysis(load_features(tmp_path / "f.npz", Silent(), training=False))
    assert found["settings"]["precision"] == "bfloat16"
    assert found["feature_error"] == error
    assert found["exported_from"] == {"part": "test", "precision": "bfloat16", "feature_error": error}


@pytest.mark.parametrize(
    "about", [{"part": 3}, {"precision": "bfloat16"}, {"precision": "bfloat16", "feature_error": {"trained": 1}}]
)
def test_an_origin_that_makes_no_sense_is_refused(tmp_path: Path, about: dict[str, Any]) -> None:
    features, _ = cones()
    write_features(tmp_path / "f.npz", replace(arrays_of(features), about=about), precision="float32")
    with pytest.raises(InputError, match=r"f\.npz: settings cannot be read: about\."):
        load_features(tmp_path / "f.npz", Silent(), training=False)


# ---------------------------------------------------------------------- accuracies
def probed(**arrays: Any) -> dict[str, Any]:
    measurement = load_measurement({}, ["probe.penalties=[0.01]", "probe.knn_k=3"], where="f.npz")
    return json.loads(json.dumps(probe_features(check_arrays(arrays, where="f.npz"), measurement), allow_nan=False))


def test_classifiers_are_fitted_on_training_features_and_tested_on_the_clean_view() -> None:
    features, labels = cones(per_class=10)
    features[:, 1:] = 0  # the augmented views of the test images decide nothing
    wrong = labels.copy()
    wrong[:5] = 1  # of the class at e_0
    train, train_labels = cones(per_class=20)
    found = probed(features=features, labels=wrong, train_features=train, train_labels=train_labels)
    assert set(found) == {"format", "features_sha256", "seed", "settings", "trained"}
    for name in ("linear", "knn", "nearest_center"):
        score = found["trained"][name]
        assert score["accuracy"] == 35 / 40
        assert score["interval"] == list(clopper_pearson(35, 40))
        assert score["per_class"] == {"0": 1.0, "1": pytest.approx(10 / 15), "2": 1.0, "3": 1.0}
    assert found["trained"]["nearest_center"]["center_views"] == found["settings"]["center_views"] == 2


def test_centres_are_over_augmented_views_or_over_clean_images() -> None:
    """Training images that lie at the other class's place, and whose augmented views lie at their own."""
    clean = np.array([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4)
    labels = np.repeat([0, 1], 4)
    views = np.stack([clean[::-1], clean], axis=1)
    over_views = probed(features=clean, labels=labels, train_features=views, train_labels=labels)["trained"]
    over_clean = probed(features=clean, labels=labels, train_features=clean, train_labels=labels)["trained"]
    assert (over_views["nearest_center"]["accuracy"], over_views["nearest_center"]["center_views"]) == (1.0, 1)
    assert (over_clean["nearest_center"]["accuracy"], over_clean["nearest_center"]["center_views"]) == (1.0, 0)
    assert (over_views["knn"]["accuracy"], over_clean["knn"]["accuracy"]) == (0.0, 1.0)


def test_centres_do_not_depend_on_the_blocks_they_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    train, labels = generator.standard_normal((50, 3, 4)), generator.integers(0, 3, 50)
    test = {"features": generator.standard_normal((40, 4)), "labels": generator.integers(0, 3, 40)}
    whole = probed(**test, train_features=train, train_labels=labels)
    monkeypatch.setattr(measured_features, "CENTER_IMAGES", 7)
    assert probed(**test, train_features=train, train_labels=labels) == whole
    assert 0 < whole["trained"]["nearest_center"]["accuracy"] < 1


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": None}, "labels: there are no labels to compare predictions with"),
        ({"train_features": None, "train_labels": None}, "Add train_features (images, width) and train_labels"),
        ({"labels": [9] * 6}, "test images of '9', and no training image of that class"),
    ],
)
def test_what_probing_lacks_is_said(arrays: dict[str, Any], words: str) -> None:
    features = np.random.default_rng(0).standard_normal((6, 4))
    whole = {"features": features, "labels": [0, 1] * 3, "train_features": features, "train_labels": [0, 1] * 3}
    with pytest.raises(InputError) as refused:
        probed(**(whole | arrays))
    assert words in str(refused.value)
