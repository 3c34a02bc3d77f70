"""Arrays from other programs: what is taken for what, and what is refused with the array and the value."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from cssl_cli.errors import InputError
from cssl_cli.features.arrays import FeatureArrays, check_arrays

FEATURES = np.random.default_rng(0).standard_normal((6, 3, 4))
LABELS = np.array([0, 0, 1, 1, 2, 2])


def checked(**arrays: Any) -> FeatureArrays:
    return check_arrays({"features": FEATURES, **arrays}, where="f.npz")


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4", ">f8", "longdouble"])
def test_any_floating_point_type_is_taken(kind: str) -> None:
    given = FEATURES.astype(kind)
    found = checked(features=given).features
    assert found.dtype == (torch.float32 if given.itemsize <= 4 else torch.float64)
    assert found.numpy() == pytest.approx(given.astype(float), abs=0)


def test_half_precision_tensors_and_those_with_gradients() -> None:
    given = torch.from_numpy(FEATURES).bfloat16().requires_grad_()
    found = checked(features=given).features
    assert found.dtype == torch.float32
    assert torch.equal(found, given.detach().float())
    assert not found.requires_grad


def test_arrays_are_not_copied_without_need() -> None:
    given = FEATURES.astype(np.float32)
    assert checked(features=given).features.data_ptr() == given.ctypes.data


@pytest.mark.parametrize("of_torch", [True, False])
def test_the_order_in_memory_changes_nothing(of_torch: bool) -> None:
    turned = np.ascontiguousarray(FEATURES.transpose(2, 1, 0)).transpose(2, 1, 0)
    found = checked(features=torch.from_numpy(turned) if of_torch else turned).features
    assert found.is_contiguous()
    assert np.array_equal(found.numpy(), FEATURES)


def test_a_sparse_tensor_is_taken() -> None:
    dense = torch.eye(6, 4)
    assert torch.equal(checked(features=dense.to_sparse()).features[:, 0], dense)


def test_arrays_that_torch_cannot_share_are_copied_without_a_warning() -> None:
    read_only = FEATURES.copy()
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(checked(features=read_only).features, torch.from_numpy(FEATURES))
        assert torch.equal(checked(features=FEATURES[::-1]).features, torch.from_numpy(FEATURES).flip(0))


def test_one_vector_an_image_is_one_view() -> None:
    assert checked(features=FEATURES[:, 0]).features.shape == (6, 1, 4)


@pytest.mark.parametrize("kind", ["u1", "i1", "<i2", ">i4", "u4", "i8", "u8"])
def test_labels_are_whole_numbers_of_any_width(kind: str) -> None:
    found = checked(labels=(10 * LABELS + 7).astype(kind))
    assert found.labels is not None
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == LABELS.tolist()
    assert found.class_names == ("7", "17", "27")


@pytest.mark.parametrize("kind", ["U3", "S3"])
def test_labels_may_be_names(kind: str) -> None:
    names = np.array(["ship", "cat", "dog"]).astype(kind)[LABELS]
    found = checked(labels=names)
    assert [found.class_names[label] for label in found.labels.tolist()] == [str(n.astype("U")) for n in names]
    assert list(found.class_names) == sorted(found.class_names)


def test_class_names_decide_which_class_is_which() -> None:
    by_number = checked(labels=LABELS, class_names=["c", "b", "a", "none of these"])
    by_name = checked(labels=["c", "c", "b", "b", "a", "a"], class_names=["c", "b", "a", "none of these"])
    assert by_number.labels.tolist() == by_name.labels.tolist() == LABELS.tolist()
    assert by_number.class_names == by_name.class_names == ("c", "b", "a", "none of these")
    assert by_number.digest == by_name.digest


def test_classes_are_those_of_images_and_training_images() -> None:
    found = checked(labels=["b"] * 6, train_features=FEATURES[:, 0], train_labels=["a", "a", "b", "b", "c", "c"])
    assert found.class_names == ("a", "b", "c")
    assert found.labels.tolist() == [1] * 6
    assert found.train_labels.tolist() == LABELS.tolist()


def test_names_and_numbers_go_together_where_class_names_say_how() -> None:
    found = checked(labels=["b"] * 6, train_features=FEATURES, train_labels=LABELS, class_names=["c", "b", "a"])
    assert found.labels.tolist() == [1] * 6
    assert found.train_labels.tolist() == LABELS.tolist()


def test_the_digest_is_of_features_and_classes() -> None:
    whole = checked(labels=LABELS)
    assert whole.digest == checked(labels=LABELS.astype("u1"), untrained=FEATURES).digest
    assert whole.digest != checked(labels=LABELS[::-1]).digest
    assert whole.digest != checked(labels=None).digest
    moved = FEATURES.copy()
    moved[5, 2, 3] = np.nextafter(moved[5, 2, 3], 9)
    assert whole.digest != checked(features=moved, labels=LABELS).digest


def with_value(value: float, where: tuple[int, int, int] = (4, 1, 2)) -> np.ndarray:
    changed = FEATURES.copy()
    changed[where] = value
    return changed


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"features": None}, ["no array features"]),
        ({"features": FEATURES[:0]}, ["features is empty", "(0, 3, 4)"]),
        ({"features": FEATURES[:, :, :0]}, ["features is empty", "(6, 3, 0)"]),
        ({"features": FEATURES[:1]}, ["a single image"]),
        ({"features": FEATURES[..., None]}, ["(6, 3, 4, 1)", "(images, width)", "view 0"]),
        ({"features": FEATURES[0, 0]}, ["shape (4,)"]),
        ({"features": np.float64(3)}, ["shape ()"]),
        ({"features": with_value(np.nan)}, ["features is NaN in image 4", "Leave such images out"]),
        ({"features": with_value(-np.inf)}, ["features is infinite in image 4"]),
        ({"features": with_value(1e39)}, ["1e+39 in image 4", "float32"]),
        ({"features": 1e-300 * FEATURES}, ["features has no number above 2", "e-300", "Multiply them"]),
        ({"features": LABELS}, ["features is of int64", "astype(np.float32)"]),
        ({"features": FEATURES.astype(complex)}, ["features is of complex128"]),
        ({"features": torch.arange(8)}, ["features is of int64"]),
        ({"features": FEATURES.astype(object)}, ["features holds Python objects"]),
        ({"features": [[1.0, 2.0], [1.0]]}, ["features is no array"]),
        ({"features": torch.from_numpy(FEATURES).to("meta")}, ["features is a tensor that cannot be read", "meta"]),
        ({"features": torch.zeros(6, 4, dtype=torch.float4_e2m1fn_x2)}, ["features is of float4_e2m1fn_x2"]),
        ({"features": np.ma.masked_greater(FEATURES, 1)}, ["features has masked numbers"]),
        ({"labels": torch.from_numpy(LABELS).bfloat16()}, ["labels is of bfloat16"]),
        ({"labels": LABELS[:5]}, ["labels has shape (5,)", "6 images", "Shape (6,)"]),
        ({"labels": np.eye(6)}, ["labels has shape (6, 6)", "one label for each image"]),
        ({"labels": LABELS - 1}, ["labels is -1 for image 0", "Leave images without a class out"]),
        ({"labels": LABELS + 0.5}, ["labels is of float64"]),
        ({"labels": LABELS.astype(object)}, ["labels holds Python objects"]),
        ({"labels": np.array([b"\xff"] * 6)}, ["labels has bytes that are not UTF-8"]),
        ({"labels": LABELS, "class_names": ["a", "b"]}, ["labels is 2 for image 4", "class_names has 2 names"]),
        ({"labels": ["a", "b", "c"] * 2, "class_names": ["a", "b"]}, ["labels is c for image 2"]),
        ({"labels": ["\x1b[2J"] * 6, "class_names": ["a"]}, [r"labels is \x1b[2J for image 0"]),
        ({"labels": LABELS, "class_names": ["a", "b", "a"]}, ["class_names has 'a' twice"]),
        ({"labels": LABELS, "class_names": LABELS}, ["class_names is of int64"]),
        ({"train_features": FEATURES}, ["train_features is given without train_labels", "both"]),
        ({"train_labels": LABELS}, ["train_labels is given without train_features"]),
        ({"train_features": FEATURES[..., :2], "train_labels": LABELS}, ["train_features has shape (6, 3, 2)", "4"]),
        ({"train_features": with_value(np.nan), "train_labels": LABELS}, ["train_features is NaN in image 4"]),
        (
            {"labels": LABELS, "train_features": FEATURES, "train_labels": LABELS.astype(str)},
            ["of labels and train_labels one has names and one has numbers", "class_names"],
        ),
        ({"untrained": FEATURES[:, :2]}, ["untrained has shape (6, 2, 4)", "(6, 3, width)"]),
        ({"projector": FEATURES[:5]}, ["projector has shape (5, 3, 4)"]),
        (
            {"continuous": FEATURES, "states": np.zeros((6, 2, 1), int)},
            ["view_continuous has shape (6, 3, 4)", "(6, 2, parameters)"],
        ),
    ],
)
def test_what_cannot_be_measured_is_named(arrays: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        checked(**arrays)
    assert refused.value.where == "f.npz"
    assert refused.value.remedy
    for word in words:
        assert word in str(refused.value), word


def test_a_later_block_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cssl_cli.features.arrays._CHECKED", 24)  # two images
    with pytest.raises(InputError, match="features is NaN in image 5"):
        checked(features=with_value(np.nan, (5, 0, 0)))
