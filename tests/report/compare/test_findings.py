"""What a table means, in sentences made from its numbers: against numbers chosen so that the sentences are known."""

from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.report.compare.catalogue import BY_NAME, LINEAR
from cssl_cli.report.compare.findings import findings
from cssl_cli.report.compare.rows import Row, rows_of
from tests.support.synthetic_members import CONTROL, member

KNN = BY_NAME["knn"]


def table() -> list[Row]:
    """Crop has the best alignment, color the best accuracies, spread and centres; the untrained encoder has 25 %."""
    return rows_of(
        [
            member(
                "crop", accuracies={"linear": 0.30, "knn": 0.20}, alignment=0.02, mean_inner_product=0.6, ratio=90.0
            ),
            member(
                "color", accuracies={"linear": 0.66, "knn": 0.29}, alignment=0.2, mean_inner_product=0.4, ratio=20.0
            ),
            member("fade", accuracies={"linear": 0.9, "knn": 0.9}, alignment=0.0, ratio=1.0, recipe=CONTROL),
        ]
    )


def test_the_best_row_what_beats_the_untrained_encoder_and_where_the_terms_point() -> None:
    assert findings(table(), LINEAR) == [
        "Highest linear accuracy: color, 66.0 %, against 25.0 % of the untrained encoder. Of 2 rows, 1 in linear "
        "accuracy and 0 in k-NN accuracy beat it by more than the 95 % intervals of both.",
        "By the theory's terms: μk·μl, W/B put it first, too; align puts crop first, of 30.0 %.",
    ]
    assert findings(table(), KNN)[0] == (
        "Highest k-NN accuracy: color, 29.0 %, against 25.0 % of the untrained encoder. Of 2 rows, 0 in k-NN accuracy "
        "and 1 in linear accuracy beat it by more than the 95 % intervals of both."
    )


def test_a_row_beats_the_untrained_encoder_where_the_intervals_lie_apart_for_every_seed() -> None:
    highest = clopper_pearson(250, 1000)[1]
    least = next(k for k in range(250, 1000) if clopper_pearson(k, 1000)[0] > highest) / 1000

    def count(*accuracies: float) -> str:
        seeds = [member("a", seed, accuracies={"linear": one}) for seed, one in enumerate(accuracies)]
        return findings(rows_of([*seeds, member("b", accuracies={"linear": 0.1})]), LINEAR)[0]

    assert "Of 2 rows, 1 in linear" in count(least)
    assert "Of 2 rows, 0 in linear" in count(least - 0.001)
    assert "Of 2 rows, 1 in linear" in count(least, 0.9)
    assert "Of 2 rows, 0 in linear" in count(0.9, least - 0.001)


def test_ties_and_missing_terms_point_nowhere() -> None:
    rows = rows_of([member("a", accuracies={"linear": 0.4}, alignment=0.1), member("b", alignment=0.1, ratio=3.0)])
    assert len(findings(rows, LINEAR)) == 1


def test_all_rows_of_the_highest_accuracy_are_named() -> None:
    rows = rows_of([member(name, accuracies={"linear": 0.5}, alignment=of) for name, of in (("a", 0.2), ("b", 0.1))])
    about_accuracy, about_terms = findings(rows, LINEAR)
    assert about_accuracy.startswith("Highest linear accuracy: a, b, 50.0 %, against")
    assert about_terms == "By the theory's terms: align puts b first, of 50.0 %."


def test_means_that_rounding_alone_tells_apart_are_equal() -> None:
    seeds = {"a": (0.1, 0.2), "b": (0.15, 0.15)}  # 0.15000000000000002 on average, and 0.15
    results = [
        member(name, seed, accuracies={"linear": one}, alignment=one)
        for name, of_row in seeds.items()
        for seed, one in enumerate(of_row)
    ]
    (about_accuracy,) = findings(rows_of(results), LINEAR)
    assert about_accuracy.startswith("Highest linear accuracy: a, b, 15.0 %")


def test_nothing_is_beaten_that_was_not_measured() -> None:
    results = [member(name, accuracies={"linear": one}) for name, one in (("a", 0.5), ("b", 0.4))]
    for result in results:
        assert result.probe is not None
        result.probe["untrained"].clear()
    assert findings(rows_of(results), LINEAR) == ["Highest linear accuracy: a, 50.0 %."]


def test_nothing_is_said_of_one_row_or_without_accuracies() -> None:
    assert findings(rows_of([member("a")]), LINEAR) == []
    lacking = {"linear": None, "knn": None, "nearest_center": None}
    assert findings(rows_of([member("a", accuracies=lacking), member("b", accuracies=lacking)]), LINEAR) == []
    assert findings(rows_of([member("a"), member("b", error="no")]), LINEAR) == []
