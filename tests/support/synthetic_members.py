"""Members of a sweep with made-up results: the numbers given stand where the pipeline writes them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Member

EPSILONS = [0.1, 0.5, 0.9]
DELTAS = [0.25, 0.5, 1.0, 1.5]
RECIPE = load_recipe("simclr-shapes")
CONTROL = load_recipe("simclr-shapes", ["augment.fade={}"])


def estimate(value: Any) -> dict[str, Any]:
    return {"value": value, "interval": None, "estimator": "", "errs": "unbiased", "num_images": 9, "num_views": 3}


def score(accuracy: float | None) -> dict[str, Any]:
    return {"accuracy": accuracy, "interval": [0, 1], "num_images": 1000, "per_class": {}}


def distance(**values: float | None) -> dict[str, Any]:
    """Concentration in one distance; `half`, `whole` and `relative` are 1 − σ."""

    def curve(at_half: float | None, at_whole: float | None) -> Any:
        sigmas = [0.0, *(None if outside is None else 1 - outside for outside in (at_half, at_whole)), 1.0]
        return estimate(None if sigmas[1:3] == [None, None] else sigmas)

    return {
        "mean_sigma_low": curve(values.get("half"), values.get("whole")),
        "mean_sigma_high": estimate([1.0] * 4),
        "sigma_relative": curve(0.9, values.get("relative")),
        "sigma_relative_high": estimate([1.0] * 4),
        "within_over_between": estimate(values.get("ratio")),
        "nearest_same_class": estimate(values.get("nearest")),
        "trade_off": estimate(values.get("trade")),
        "share_meeting_other_class": estimate(values.get("meeting")),
    }


def member(
    row: str,
    seed: int = 0,
    *,
    accuracies: dict[str, float | None] | None = None,
    distances: dict[str, dict[str, float | None]] | None = None,
    method: str | None = None,
    recipe: Recipe = RECIPE,
    path: Path | None = None,
    views: int = 4,
    error: str | None = None,
    **terms: float | None,
) -> MemberResult:
    """A finished member. terms: by name of the catalogue, those of features and of a ranking; distances: what
    `distance` takes.
    """
    known = {"linear": 0.3, "knn": 0.3, "nearest_center": 0.3} | (accuracies or {})
    found = {name: score(accuracy) for name, accuracy in known.items()}
    base = {name: score(0.25) for name in known}
    trained = {
        "alignment": {"unbiased": estimate(terms.get("alignment"))},
        "class_centers": {
            "mean_inner_product": estimate(terms.get("mean_inner_product")),
            "closest_pair": estimate(terms.get("closest_pair")),
        },
        "R_epsilon": {"curve": estimate([1.0, terms.get("R_epsilon"), 0.0])},
        "spread": {"ratio": estimate(terms.get("ratio"))},
        "uniformity": {"uniformity": estimate(terms.get("uniformity"))},
        "effective_rank": {"rankme": estimate(terms.get("rankme"))},
        "trade_off": {"trade_off": estimate(terms.get("trade_off"))},
        "clid": {name: estimate(terms.get(name)) for name in ("intrinsic_dimension", "cluster_learnability")},
        "positive_pairs": {
            "share": estimate(terms.get("class_share")),
            "shared": estimate(terms.get("shared_information")),
            "leading_label_energy": estimate(terms.get("label_energy")),
            "tau": estimate(terms.get("contexture_tau")),
        },
        "risk_decomposition": {name: estimate(terms.get(name)) for name in ("best_probe_risk", "probe_generalization")},
    }
    settings = {"epsilons": EPSILONS, "deltas": DELTAS, "num_images": 500, "num_views": views, "classes": None}
    axes = {"augment": row} if method is None else {"method": method, "augment": row.removeprefix(f"{method}-")}
    return MemberResult(
        Member(name=f"{row}-seed{seed}", row=row, axes=axes, seed=seed, recipe=recipe, fingerprint=recipe.fingerprint),
        path or Path("runs") / row,
        {"trained": found, "untrained": base, "pixels": base, "content_key": "k"},
        {
            "trained": trained,
            "untrained": trained,
            "settings": settings,
            "num_images": 50,
            "content_key": "k",
            "concentration": {name: distance(**values) for name, values in (distances or {}).items()},
        },
        error,
        ranked={"content_key": "k", **{name: estimate(terms.get(name)) for name in ("share", "shared", "about_class")}},
    )


def random_member(row: str, seed: int, numbers: random.Random, **options: Any) -> MemberResult:
    """A member of random numbers: rounded, so that some are tied."""
    accuracies = {name: round(numbers.random(), 1) for name in ("linear", "knn", "nearest_center")}
    features = ("alignment", "mean_inner_product", "R_epsilon", "ratio", "closest_pair", "uniformity", "rankme")
    names = ("half", "whole", "relative", "ratio", "nearest")
    distances: Any = {
        distance: {name: round(numbers.random(), 1) for name in names} for distance in ("pixels", "trained")
    }
    terms = {name: round(numbers.random(), 1) for name in features}
    return member(row, seed, accuracies=accuracies, distances=distances, **terms, **options)
