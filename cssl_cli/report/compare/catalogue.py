"""The columns of a sweep's table: the accuracies, and the quantities of terms that `theory/terms.py` shows in sweeps.

A number is None if the member's files lack it. A number on a grid is read at the grid point nearest to the point quoted
in the table of terms. For σ the tables hold certain bounds; 1 − σ is one minus the lower bound: the share of images
outside the main part that was found, which a bound on the error may use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cssl_cli.errors import InputError, unknown_name
from cssl_cli.runs.results import CLASSIFIERS, SHARE_DIGITS, number, part, quantities_of, quoted
from cssl_cli.runs.run_dir import EPOCH_KNN, RunDir
from cssl_cli.sweep.results_index import Measured
from cssl_cli.theory.shown import Shown, declared, shown_in
from cssl_cli.theory.term import ARROWS, In

Read = Callable[[Measured], float | None]
Interval = tuple[float, float]
ReadInterval = Callable[[Measured], Interval | None]


@dataclass(frozen=True)
class Column:
    """A number of a member, and how a table shows it.

    title: the head of its column. sign: the predicted sign of its association with an accuracy, +1 or −1, or None.
    called: its name in sentences and in the table of correlations. scale, digits: its display format. of_views: whether
    it depends on the number of views or on a grid, so that only like measurements can be compared. meaning: its legend,
    with placeholders {epsilon}, {delta} and {views}. read_interval: its 95 % interval over images.
    """

    name: str
    title: str
    read: Read
    sign: int | None = None
    called: str = ""
    scale: float = 1.0
    digits: int = 2
    of_views: bool = False
    meaning: str = ""
    read_interval: ReadInterval = lambda _: None

    @property
    def label(self) -> str:
        """Its name in sentences, with an arrow towards the direction in which the theory expects better accuracies."""
        return (self.called or self.title.rstrip(" ↑↓")) + ARROWS[self.sign]

    def best(self, values: Sequence[float]) -> float:
        """The best of the values according to the theory; the greatest for accuracies."""
        return max(values) if self.sign in (1, None) else min(values)

    def shown(self, value: float) -> str:
        """The value as the tables print it."""
        return f"{round(self.scale * value, self.digits) + 0.0:.{self.digits}f}"  # adding 0.0 turns −0.00 into 0.00


# ---------------------------------------------------------------------- where a number stands
def _accuracy(encoder: str, *classifier: str) -> Read:
    return lambda result: number(part(result.probe, encoder, *classifier).get("accuracy"))


def _interval_of_accuracy(*classifier: str) -> ReadInterval:
    def read(result: Measured) -> Interval | None:
        ends = part(result.probe, "trained", *classifier).get("interval")
        low, high = map(number, ends) if isinstance(ends, list) and len(ends) == 2 else (None, None)
        return None if low is None or high is None else (low, high)

    return read


def _quoted_interval(shown: Shown) -> ReadInterval:
    def read(result: Measured) -> Interval | None:
        found = quoted(quantities_of(result.analysis, shown), shown.declared, part(result.analysis, "settings"))
        return None if found is None else found[1]

    return read


def _quoted(shown: Shown) -> Read:
    if shown.term.of == "augmentation":
        return lambda result: number(part(result.ranked, shown.declared.name).get("value"))

    def read(result: Measured) -> float | None:
        found = quoted(quantities_of(result.analysis, shown), shown.declared, part(result.analysis, "settings"))
        if found is None:
            return None
        return round(found[0], SHARE_DIGITS) if shown.declared.complement else found[0]

    return read


def _best_knn(result: Measured) -> float | None:
    """The greatest k-NN accuracy through training; None if the records are damaged."""
    try:
        records = RunDir(result.path).read_records(EPOCH_KNN)
    except (InputError, OSError):
        return None
    found = [accuracy for record in records if (accuracy := number(record.get("knn"))) is not None]
    return max(found, default=None)


# ---------------------------------------------------------------------- accuracies
LAST_EPOCH = tuple(
    Column(
        name,
        classifier.head,
        _accuracy("trained", name),
        called=classifier.accuracy,
        scale=100,
        digits=1,
        read_interval=_interval_of_accuracy(name),
    )
    for name, classifier in CLASSIFIERS.items()
)
BEST_KNN = Column("best_knn", "best k-NN", _best_knn, called="best k-NN accuracy", scale=100, digits=1)
LINEAR = LAST_EPOCH[0]
ACCURACIES = (*LAST_EPOCH, BEST_KNN)
BASELINES = tuple(
    Column(f"{encoder}_{classifier}", "", _accuracy(encoder, classifier), scale=100, digits=1)
    for encoder in ("untrained", "pixels")
    for classifier in CLASSIFIERS
)
TOP_5 = tuple(  # of more than ten classes
    Column(f"{name}_top_5", "", _accuracy("trained", name, "top_5"), scale=100, digits=1) for name in CLASSIFIERS
)


# ---------------------------------------------------------------------- terms
def _column(shown: Shown) -> Column:
    row = shown.declared
    return Column(
        shown.name,
        (row.head or shown.called) + ARROWS[row.expected],
        _quoted(shown),
        row.expected,
        shown.called,
        scale=(100 if row.share else 1) if row.scale is None else row.scale,
        digits=(1 if row.share else 2) if row.digits is None else row.digits,
        of_views=row.of_views,
        meaning=row.meaning.replace("{distance}", shown.where.replace("_", " ")),
        read_interval=_quoted_interval(shown),
    )


def _beside(name: str, shown: Shown, *, scale: float = 1, digits: int = 2) -> Column:
    """A number that is in table.json but has no column."""
    return Column(name, "", _quoted(shown), scale=scale, digits=digits)


UNTRAINED_TERMS = tuple(
    _beside(f"untrained_{shown.name}", shown._replace(where="untrained"))
    for shown in (declared("alignment", "unbiased"), declared("class_centers", "mean_inner_product"))
)
SHARED_VIEWS = _beside(
    "shared_views_pixels",
    declared("concentration", "share_meeting_other_class")._replace(where="pixels"),
    scale=100,
    digits=1,
)
TERMS = tuple(_column(shown) for shown in shown_in(In.SWEEP))
BEFORE_TRAINING = tuple(shown.name for shown in shown_in(In.SWEEP) if shown.term.of == "augmentation")
BY_NAME: Mapping[str, Column] = {
    column.name: column for column in (*ACCURACIES, *TERMS, *BASELINES, *TOP_5, *UNTRAINED_TERMS, SHARED_VIEWS)
}
# The columns of the table: those of every analysis of labelled images, then those shown only if a row has them.
FEATURE_TERMS, COMPANIONS = (
    tuple(
        BY_NAME[shown.name]
        for shown in shown_in(In.COLUMN)
        if (shown.term.section in ("alignment", "divergence")) is of_features
    )
    for of_features in (True, False)
)
MAIN_TERMS = (*FEATURE_TERMS, *COMPANIONS)
FIGURE_TERMS = tuple(shown.name for shown in shown_in(In.FIGURE))
SIGNS: Mapping[str, int | None] = {term.name: term.sign for term in TERMS}
LABELS: Mapping[str, str] = {column.name: column.label for column in (*ACCURACIES, *TERMS)}


def values_of(result: Measured) -> dict[str, float | None]:
    """All numbers of a member, by name."""
    return {name: column.read(result) for name, column in BY_NAME.items()}


def intervals_of(result: Measured) -> dict[str, Interval]:
    """The 95 % intervals over images of a member's accuracies and of the terms that have a panel, where known."""
    names = [accuracy.name for accuracy in LAST_EPOCH] + list(FIGURE_TERMS)
    return {name: found for name in names if (found := BY_NAME[name].read_interval(result)) is not None}


def accuracy_named(name: str) -> Column:
    """The accuracy that --accuracy names; `InputError` for any other name."""
    names = [accuracy.name for accuracy in ACCURACIES]
    if name not in names:
        raise unknown_name("accuracy", name, names, where="--accuracy")
    return BY_NAME[name]
