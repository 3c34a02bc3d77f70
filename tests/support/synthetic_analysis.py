"""A made-up analysis of K classes, in the form of analysis.json: what the figures are drawn from in their tests."""

from __future__ import annotations

from typing import Any

import numpy as np

NAMES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def quantity(
    value: Any, errs: str = "unbiased", interval: Any = None, num_images: int = 1000, num_views: int = 8
) -> Any:
    sample = {"num_images": num_images, "num_views": num_views}
    return {"value": value, "interval": interval, "estimator": "made up", "errs": errs, **sample}


def absent(reason: str = "no labels") -> Any:
    return {"value": None, "reason": reason}


def class_names(num_classes: int) -> list[str]:
    if num_classes <= len(NAMES):
        return list(NAMES[:num_classes])
    return [f"{NAMES[label % 10]} {label // 10}" for label in range(num_classes)]


def distance(num_classes: int, scale: float, quality: float, rng: np.random.Generator) -> dict[str, Any]:
    deltas = np.linspace(0.05, 1.6, 32) * scale
    middle = scale * quality
    sigma = 1 / (1 + np.exp(-(deltas - middle) / (0.12 * scale)))
    width = 0.02 + 0.05 * np.sin(np.pi * sigma)
    low, high = np.clip(sigma - width / 2, 0, 1), np.clip(sigma + width / 2, 0, 1)
    shifts = 0.15 * scale * rng.standard_normal(num_classes)
    per_class = {
        name: list(1 / (1 + np.exp(-(deltas - middle - shift) / (0.1 * scale))))
        for name, shift in zip(class_names(num_classes), shifts, strict=True)
    }
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    exact = "exact for the table"
    return {
        "deltas": quantity(list(deltas), exact),
        "mean_sigma_low": quantity(list(low), exact),
        "mean_sigma_high": quantity(list(high), exact),
        "sigma_low_per_class": quantity(per_class, exact),
        "sigma_relative": quantity(list(low), exact),
        "yardstick": quantity(scale, exact),
        "within_quantiles": quantity({f"{level:g}": scale * (0.4 + 0.5 * level) for level in levels}, exact),
        "between_quantiles": quantity({f"{level:g}": scale * (0.7 + 0.6 * level) for level in levels}, exact),
    }


def encoder(num_classes: int, spread: float, rng: np.random.Generator) -> dict[str, Any]:
    epsilons = [round(0.1 * step, 1) for step in range(1, 16)]
    curve = [float(1 / (1 + np.exp((epsilon - spread) / 0.12))) for epsilon in epsilons]
    interval = [[max(0.0, value - 0.03), min(1.0, value + 0.03)] for value in curve]
    views = rng.standard_normal((num_classes, 64))
    views -= 0.9 * views.mean(axis=0)
    centers = 0.75 * views / np.linalg.norm(views, axis=1, keepdims=True)
    exact = "exact for the table"
    return {
        "R_epsilon": {
            "epsilons": quantity(epsilons, exact),
            "curve": quantity(curve, "low", interval),
            "curve_by_views": quantity([[value * m / 8 for value in curve] for m in range(2, 9)], "low"),
        },
        "R_epsilon_bounds": {"stored_views": quantity([1.5 * spread**2 / epsilon**2 for epsilon in epsilons], exact)},
        "class_centers": {
            "inner_products": quantity((centers @ centers.T).tolist(), num_views=7),
            "priors": quantity(dict.fromkeys(class_names(num_classes), 1 / num_classes), exact),
        },
        "lemma_3_1": lemma_3_1(spread),
        "positive_pairs": positive_pairs(spread, num_classes),
        "certificate_c": {"by_views": quantity([min(1.0, 0.35 + 0.09 * m) for m in range(8)], exact)},
        "center_error": {"error": quantity(0.23, exact), "chance": quantity(1 - 1 / num_classes, exact)},
        "population": {
            "error": quantity(0.31, interval=[0.27, 0.35], num_images=500),
            "by_views": quantity([min(1.0, 0.41 + 0.09 * m) for m in range(8)], "high", num_images=500),
            "chance": quantity(1 - 1 / num_classes, exact, num_images=500),
        },
    }


def positive_pairs(spread: float, num_classes: int) -> dict[str, Any]:
    """Eigenvalues that fall sooner for a larger spread, and a label energy that grows with the functions."""
    functions = np.array([1, 2, 3, 4, 6, 8, 11, 16, 23, 32])
    values = 0.95 / (1 + spread * functions / 10)
    energy = 0.6 * (1 - np.exp(-functions / num_classes))
    return {
        "functions": quantity(functions.tolist(), "exact for the table", num_views=7),
        "eigenvalues": quantity(values.tolist(), "consistent", num_views=7),
        "in_sample": quantity((values + 0.03).tolist(), "consistent", num_views=7),
        "label_energy": quantity(energy.tolist(), "low", num_views=7),
    }


def lemma_3_1(spread: float) -> dict[str, Any]:
    """A grid in whose corner of large parts and tight views the condition holds."""
    deltas, epsilons = np.linspace(0.01, 0.5, 10), spread * np.linspace(0.01, 1, 10)
    sigma, rates = np.linspace(0.1, 1, 10), np.linspace(0.9, 0, 10) ** 3
    rho = 2 * (1 - sigma)[:, None] + 2 * rates + sigma[:, None] * (0.2 * deltas[:, None] + 0.2 * epsilons)
    found = {
        "deltas": deltas,
        "epsilons": epsilons,
        "sigma": sigma,
        "R_epsilon": rates,
        "right_side": (1 - sigma)[:, None] + rates,
        "slack": 1.3 - rho - np.sqrt(2 * rho),
    }
    return {name: quantity(values.tolist(), "exact for the table") for name, values in found.items()}


def analysis(num_classes: int, num_points: int = 1000) -> dict[str, Any]:
    """The analysis of `num_points` images of `num_classes` classes; the same one at every call."""
    rng = np.random.default_rng(num_classes)
    labels = np.arange(num_points) % num_classes
    centers = rng.standard_normal((num_classes, 2)) * (0.4, 0.3)
    points = centers[labels] + 0.1 * rng.standard_normal((num_points, 2))
    return {
        "class_names": class_names(num_classes),
        "num_images": num_points,
        "concentration": {
            "pixels": distance(num_classes, 12.0, 0.9, rng),
            "standardized_pixels": distance(num_classes, 40.0, 0.85, rng),
            "untrained": distance(num_classes, 0.6, 0.8, rng),
            "trained": distance(num_classes, 1.0, 0.45, rng),
        },
        "projection": {
            "method": "principal components",
            "explained": [0.31, 0.17],
            "points": points.tolist(),
            "labels": labels.tolist(),
            "centers": centers.tolist(),
        },
        "trained": encoder(num_classes, 0.7, rng),
        "projector": encoder(num_classes, 0.9, np.random.default_rng(1)),
        "untrained": encoder(num_classes, 0.35, rng),
    }


def trace(num_records: int) -> list[dict[str, Any]]:
    """Records through training, the last of which lacks two of its numbers."""
    records: list[dict[str, Any]] = []
    for i in range(num_records):
        done = 1 - np.exp(-3 * i / max(1, num_records))
        records.append(
            {
                "epoch": 10 * i,
                "step": 400 * i,
                "alignment": 0.1 + 0.25 * done,
                "mean_inner_product": 0.95 - 0.9 * done,
                "within_over_between": 40 * np.exp(-4.5 * done) + 0.3,
                "R_epsilon": 0.2 + 0.5 * done,
                "uniformity": -0.3 - 2.5 * done,
                "rankme": 4 + 90 * done,
                "knn": 0.3 + 0.5 * done,
                "nearest_center": 0.25 + 0.45 * done,
            }
        )
    if num_records > 1:
        records[-1] |= {"R_epsilon": None}
        del records[-1]["rankme"]
    return records
