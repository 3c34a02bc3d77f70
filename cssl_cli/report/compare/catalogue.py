"""The quantities of a sweep's member: where each stands in its files, how it is shown, and what the theory predicts.

Every number is None where the member's files do not have it. What depends on a grid is read where the grid comes
nearest: R_ε at ε = 0.5, σ at δ = 0.5 and 1 yardsticks δ₀ (the median distance between clean images of two classes). Of
σ the tables have certain bounds; 1 − σ is one less the lower of them, the share of images outside the main part that
was found, which is what a bound on the error may use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cssl_cli.errors import InputError, unknown_name
from cssl_cli.report.sections.concentration import central_delta, nearest_to_one
from cssl_cli.runs.results import number, part
from cssl_cli.runs.run_dir import EPOCH_KNN, RunDir
from cssl_cli.sweep.results_index import Measured

CENTRAL_EPSILON = 0.5
SHARE_DIGITS = 12  # of 1 − σ: beyond them is the rounding of σ, which would order equal shares
CLASSIFIERS = {"linear": "linear", "knn": "k-NN", "nearest_center": "centre"}
DISTANCES = {
    "pixels": "pixels",
    "standardized_pixels": "std. pixels",
    "untrained": "untrained",
    "trained": "trained",
}
Read = Callable[[Measured], float | None]


@dataclass(frozen=True)
class Quantity:
    """A number of a member.

    title: the head of its column. sign: of its association with an accuracy as the theory predicts it, +1 or −1, or
    None. called: its name in sentences and in the table of correlations. scale, digits: how it is shown. of_views:
    whether it depends on the number of views or on a grid, so that only alike measurements can be compared.
    """

    name: str
    title: str
    read: Read
    sign: int | None = None
    called: str = ""
    scale: float = 1.0
    digits: int = 2
    of_views: bool = False

    @property
    def label(self) -> str:
        """Its name in sentences, with an arrow towards where the theory expects better accuracies."""
        arrow = {1: " ↑", -1: " ↓", None: ""}[self.sign]
        return (self.called or self.title.rstrip(" ↑↓")) + arrow

    def best(self, values: Sequence[float]) -> float:
        """The value that the theory likes best; of accuracies the greatest."""
        return max(values) if self.sign in (1, None) else min(values)

    def shown(self, value: float) -> str:
        """The value as the tables show it."""
        return f"{round(self.scale * value, self.digits) + 0.0:.{self.digits}f}"  # adding 0.0 turns −0.00 into 0.00


# ---------------------------------------------------------------------- where a number stands
def _accuracy(encoder: str, classifier: str) -> Read:
    return lambda result: number(part(result.probe, encoder, classifier).get("accuracy"))


def _term(term: str, quantity: str, encoder: str = "trained") -> Read:
    return lambda result: number(part(result.analysis, encoder, term, quantity).get("value"))


def _r_epsilon(result: Measured) -> float | None:
    epsilons = part(result.analysis, "settings").get("epsilons")
    curve = part(result.analysis, "trained", "R_epsilon", "curve").get("value")
    return number(curve[epsilons.index(central_epsilon(epsilons))]) if epsilons and curve else None


def central_epsilon(epsilons: Sequence[float]) -> float:
    """The ε of the grid that the table shows: the one nearest to 0.5."""
    return min(epsilons, key=lambda epsilon: abs(epsilon - CENTRAL_EPSILON))


def _of_distance(distance: str, quantity: str) -> Read:
    return lambda result: number(part(result.analysis, "concentration", distance, quantity).get("value"))


def _outside(distance: str, quantity: str, place: Callable[[Sequence[float]], int]) -> Read:
    """1 − σ in a distance at one place of the grid of δ."""

    def read(result: Measured) -> float | None:
        deltas = part(result.analysis, "settings").get("deltas")
        curve = part(result.analysis, "concentration", distance, quantity).get("value")
        sigma = number(curve[place(deltas)]) if deltas and curve else None
        return None if sigma is None else round(1 - sigma, SHARE_DIGITS)

    return read


def _relative(distance: str) -> Read:
    """1 − σ at δ = the median d_A between classes; None where that is 0, as any δ that is a multiple of it is."""
    outside = _outside(distance, "sigma_relative", nearest_to_one)

    def read(result: Measured) -> float | None:
        quantiles = part(result.analysis, "concentration", distance, "between_quantiles", "value")
        return None if quantiles.get("0.5") == 0 else outside(result)

    return read


def _best_knn(result: Measured) -> float | None:
    """The greatest k-NN accuracy through training; a file of records that is damaged counts as none."""
    try:
        records = RunDir(result.path).read_records(EPOCH_KNN)
    except (InputError, OSError):
        return None
    found = [accuracy for record in records if (accuracy := number(record.get("knn"))) is not None]
    return max(found, default=None)


# ---------------------------------------------------------------------- accuracies
LAST_EPOCH = tuple(
    Quantity(name, title, _accuracy("trained", name), called=called, scale=100, digits=1)
    for (name, title), called in zip(
        CLASSIFIERS.items(), ("linear accuracy", "k-NN accuracy", "nearest-centre accuracy"), strict=True
    )
)
BEST_KNN = Quantity("best_knn", "best k-NN", _best_knn, called="best k-NN accuracy", scale=100, digits=1)
LINEAR = LAST_EPOCH[0]
ACCURACIES = (*LAST_EPOCH, BEST_KNN)
BASELINES = tuple(
    Quantity(f"{encoder}_{classifier}", "", _accuracy(encoder, classifier), scale=100, digits=1)
    for encoder in ("untrained", "pixels")
    for classifier in CLASSIFIERS
)
UNTRAINED_TERMS = (
    Quantity("untrained_alignment", "", _term("alignment", "unbiased", "untrained")),
    Quantity("untrained_mean_inner_product", "", _term("class_centers", "mean_inner_product", "untrained")),
)

SHARED_VIEWS = Quantity(
    "shared_views_pixels", "", _of_distance("pixels", "share_meeting_other_class"), scale=100, digits=1
)


# ---------------------------------------------------------------------- terms
def _concentration() -> Iterator[Quantity]:
    """What is measured in each distance: at a δ that no augmentation changes, and against other classes."""
    for name, called in DISTANCES.items():
        looks: dict[str, Any] = {"scale": 100, "digits": 1, "of_views": True}
        for key, at, read in (
            (f"one_minus_sigma_{name}", ", ½ δ₀", _outside(name, "mean_sigma_low", central_delta)),
            (f"one_minus_sigma_{name}_at_yardstick", ", δ₀", _outside(name, "mean_sigma_low", nearest_to_one)),
        ):
            yield Quantity(key, "1−σ ↓", read, -1, f"1−σ {called}{at}", **looks)
        key, said = f"one_minus_sigma_relative_{name}", f"1−σ rel. {called}"
        yield Quantity(key, "1−σ rel. ↓", _relative(name), -1, said, **looks)
        ratio, nearest = (_of_distance(name, key) for key in ("within_over_between", "nearest_same_class"))
        yield Quantity(
            f"within_over_between_{name}", "d_A w/b ↓", ratio, -1, f"d_A w/b {called}", digits=3, of_views=True
        )
        yield Quantity(f"nearest_same_class_{name}", "nearest ↑", nearest, 1, f"nearest {called}", **looks)


FEATURE_TERMS = (
    Quantity("alignment", "align ↓", _term("alignment", "unbiased"), -1, "alignment"),
    Quantity("mean_inner_product", "μk·μl ↓", _term("class_centers", "mean_inner_product"), -1, "mean μk·μl"),
    Quantity("R_epsilon", "R_ε ↓", _r_epsilon, -1, of_views=True),
    Quantity("ratio", "W/B ↓", _term("spread", "ratio"), -1, "within / between", digits=1),
)
TERMS = (
    *FEATURE_TERMS,
    Quantity("closest_pair", "‖μk−μl‖ ↑", _term("class_centers", "closest_pair"), 1, "least ‖μk − μl‖"),
    *_concentration(),
    Quantity("uniformity", "unif. ↓", _term("uniformity", "uniformity"), -1, "uniformity"),
    Quantity("rankme", "RankMe ↑", _term("effective_rank", "rankme"), 1, "RankMe", digits=1),
)
BY_NAME: Mapping[str, Quantity] = {
    quantity.name: quantity for quantity in (*ACCURACIES, *TERMS, *BASELINES, *UNTRAINED_TERMS, SHARED_VIEWS)
}
COMPANIONS = tuple(BY_NAME[name] for name in ("one_minus_sigma_pixels", "one_minus_sigma_relative_pixels", "rankme"))
MAIN_TERMS = (*FEATURE_TERMS, *COMPANIONS)  # the columns of the table
FIGURE_TERMS = (
    *(quantity.name for quantity in MAIN_TERMS),
    "one_minus_sigma_pixels_at_yardstick",
    "one_minus_sigma_trained",
)
SIGNS: Mapping[str, int | None] = {term.name: term.sign for term in TERMS}
LABELS: Mapping[str, str] = {quantity.name: quantity.label for quantity in (*ACCURACIES, *TERMS)}


def values_of(result: Measured) -> dict[str, float | None]:
    """Every quantity of a member by its name."""
    return {name: quantity.read(result) for name, quantity in BY_NAME.items()}


def accuracy_named(name: str) -> Quantity:
    """The accuracy that --accuracy names; `InputError` for any other name."""
    names = [accuracy.name for accuracy in ACCURACIES]
    if name not in names:
        raise unknown_name("accuracy", name, names, where="--accuracy")
    return BY_NAME[name]
