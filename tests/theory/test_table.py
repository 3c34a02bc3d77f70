"""What is no table of features is refused in a sentence."""

import math

import pytest
import torch

from cssl_cli.errors import InputError, RunError
from cssl_cli.theory.table import FeatureTable

NAMES = ("class 0", "class 1", "class 2")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_undefined_features_stop_with_a_sentence(bad):
    features = torch.zeros(3, 3, 2)
    features[1, 2, 0] = bad
    with pytest.raises(RunError, match="features of the views contain infinite or undefined numbers"):
        FeatureTable.build(features, torch.tensor([0, 1, 2]), NAMES)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 3], "0 to 3 but there are 3 classes"), ([-1, 1, 2], "-1 to 2"), ([0, 1], "3 images")],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        FeatureTable.build(torch.zeros(3, 3, 2), torch.tensor(labels), NAMES)


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 2)])
def test_features_that_are_no_table_are_refused(shape):
    with pytest.raises(InputError, match=r"\(images, views, width\)"):
        FeatureTable.build(torch.zeros(shape), None, NAMES)
