"""The risk of a linear probe, split as far as a table of features allows. (docs/theory.md, 13.)

Dubois, Hashimoto and Liang, "Evaluating Self-Supervised Learning via Risk Decomposition", ICML 2023, arXiv 2302.03068,
split the risk R_{U,S} of a probe that is trained on a sample S, on an encoder that was pretrained on a sample U. With F
for a probe that is the best on the population, A for an encoder that was pretrained on it, and R_F for the best
network of the encoder's kind and probe together:

    R_{U,S} = R_F + (R_{A,F} − R_F) + (R_{A,S} − R_{A,F}) + (R_{U,S} − R_{A,S})
              approximation, usability, probe generalization, encoder generalization.

They train and test a probe on the encoder's training images for R_{A,F}, train it on a part of them and test it on the
rest for R_{A,S}, and test it on new images for R_{U,S}; without a supervised network, approximation and usability are
one number. Their code also goes the other way round, encoder before probe generalization, by R_{U,F}, a probe tested on
new images that it was trained on, too. (Checked against that code, github.com/YannDubs/SSL-Risk-Decomposition:
`compute_risk_components` of the README, `make_risk_decomposition` of utils/collect_results.py.)

A table holds images that the encoder has not seen. It gives R_{U,F} by the error of a probe on the images it was
trained on, R_{U,S} by halves, and their difference, the probe generalization on this way. It does not tell encoder
generalization, which takes the training images, nor approximation, which takes a supervised network, from usability:
R_{U,F} is the sum of the three. (Where a data set has no test part, the encoder has seen the table's images: the same
numbers are then R_{A,F}, R_{A,S} and the probe generalization on the first way.)

The probe is that of `cssl probe`. The authors tune theirs for each risk on images like those it is tested on: for
R_{A,F} and R_{U,F}, errors in training, that means the weakest penalty.
"""

from __future__ import annotations

import torch

from cssl_cli.features.probe.linear import fit_linear, split_validation
from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample
from cssl_cli.theory.table import FeatureTable

QUANTITIES = ("best_probe_risk", "probe_generalization", "probe_risk")
PENALTIES = tuple(10.0**exponent for exponent in range(-5, 2))
VALIDATION = 0.1  # share of the training images on which the penalty is chosen


def risk_decomposition(table: FeatureTable, *, generator: torch.Generator) -> dict[str, Quantity]:
    """`probe_risk`, R_{U,S}, and its parts `best_probe_risk`, R_{U,F}, and `probe_generalization`, of clean images.

    `generator` draws the half of each class that trains the probe of `probe_risk`, and the images that choose its
    penalty. The interval is for the error of that probe on the population. A class with a single image is only
    trained on. The parts are absent where a probe fits any labels, whatever the encoder.
    """
    reason = _why_absent(table)
    if reason is not None:
        return dict.fromkeys(QUANTITIES, Absent(reason))
    assert table.labels is not None
    clean, labels = table.features[:, 0].float(), table.labels  # as `cssl probe` has them
    tested = split_validation(labels, fraction=0.5, generator=generator)
    probe, facts = fit_linear(
        clean[~tested], labels[~tested], penalties=PENALTIES, validation_fraction=VALIDATION, generator=generator
    )
    num_tested = int(tested.sum())
    wrong = int((probe.predict(clean[tested]) != labels[tested]).sum())
    risk = Estimate(
        wrong / num_tested,
        f"error of a linear probe trained on a random half of each class, penalty {facts['penalty']:g}, on the "
        f"other {num_tested} clean images",
        "unbiased",
        Sample(num_tested, 1),
        interval=clopper_pearson(wrong, num_tested),
        absent=table.classes_below(2),
    )
    separable = _why_separable(table)
    if separable is not None:
        return dict.fromkeys(QUANTITIES, Absent(separable)) | {"probe_risk": risk}
    fitted, _ = fit_linear(clean, labels, penalties=PENALTIES[:1], validation_fraction=VALIDATION, generator=generator)
    best = (fitted.predict(clean) != labels).double().mean().item()
    return {
        "best_probe_risk": Estimate(
            best,
            "error of a linear probe on the clean images that it was trained on, the weakest penalty: approximation, "
            "usability and encoder generalization in one",
            "low",
            Sample(table.num_images, 1),
        ),
        "probe_generalization": Estimate(
            wrong / num_tested - best,
            "risk of the probe trained on one half less that of the best; no interval, as every resample would take a "
            "new probe",
            "high",
            Sample(num_tested, 1),
            absent=table.classes_below(2),
        ),
        "probe_risk": risk,
    }


def _why_absent(table: FeatureTable) -> str | None:
    if table.labels is None:
        return "the images have no labels"
    if int((table.class_sizes > 0).sum()) < 2:
        return "the images are all of one class"
    if int(table.class_sizes.max()) < 2:
        return "a split takes two images of some class"
    return None


def _why_separable(table: FeatureTable) -> str | None:
    """Random labels of so many images, in general position, are mostly linear in D dimensions and a bias.

    2(D + 1) images of two classes (Cover 1965), and more of more classes: (D + 1)(K − 1) over ½ + … + 1/K.
    """
    width, num_classes = table.features.shape[2], int((table.class_sizes > 0).sum())
    an_axis = (num_classes - 1) / sum(1 / others for others in range(2, num_classes + 1))
    if table.num_images > an_axis * (width + 1):
        return None
    return f"a linear probe of {width:,} features can fit random labels of {table.num_images:,} images"
