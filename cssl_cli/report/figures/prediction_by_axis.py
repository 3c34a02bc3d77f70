"""Which terms predict an accuracy along which axis: ψ as a heat map, the best terms first, the worst case beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cssl_cli.host.files import require_writable
from cssl_cli.report.compare.granulated import short_axes
from cssl_cli.report.figures.style import (
    BLUE,
    GRAY,
    INK,
    LIGHT,
    REMEDY,
    VERMILION,
    drawing,
    grid,
    legend_above,
    new_figure,
    plain,
    save,
)
from cssl_cli.runs.results import counted_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "prediction_by_axis"
MAX_TERMS = 24
ROW_HEIGHT, TILTED_HEIGHT = 0.185, 0.5  # inches
CROWDED = 30  # characters of heads side by side
Entry = Mapping[str, Any]


def draw_prediction_by_axis(
    found: Mapping[str, Any],
    folder: Path,
    *,
    accuracy_title: str,
    term_titles: Mapping[str, str],
    name: str = NAME,
    kept: dict[str, Figure] | None = None,
) -> list[Path]:
    """Write `name`.png and `name`.svg in `folder`; returns the files, none if no term has Ψ.

    found: what `granulated.judged` found. The figure goes into `kept`, too. Raises InputError or RunError if a file
    cannot be written.
    """
    with drawing():
        figure = prediction_by_axis(found, accuracy_title=accuracy_title, term_titles=term_titles)
        if figure is None:
            return []
        require_writable(folder, REMEDY)
        if kept is not None:
            kept[name] = figure
        return save(figure, folder, name)


def prediction_by_axis(
    found: Mapping[str, Any], *, accuracy_title: str, term_titles: Mapping[str, str]
) -> Figure | None:
    """ψ of each term along each axis and Ψ, sorted by |Ψ|; None if no term has one."""
    known = terms_with_psi(found)
    shown, left_out = known[:MAX_TERMS], known[MAX_TERMS:]
    if not shown:
        return None
    names = [str(axis["axis"]) for axis in found["axes"]]
    heads = [
        f"{plain(head, 14)}\n{counted_in_words(axis['num_pairs'], 'pair')}"
        for head, axis in zip(short_axes(found["axes"]), found["axes"], strict=True)
    ]
    titles = [str(term_titles.get(entry["term"], entry["term"])) for entry in shown]
    figure = new_figure(
        f"{plain(accuracy_title)}: what predicts it along each axis",
        _caption(found, shown, len(left_out)),
        (6.0, 1.75 + ROW_HEIGHT * len(shown) + (TILTED_HEIGHT if _is_crowded(heads) else 0)),
    )
    if any(entry["sign_error"] for entry in shown):
        legend_above(figure, _handles())
        heat, errors = figure.subplots(1, 2, width_ratios=(len(names) + 2.2, 2.6))
        _draw_errors(errors, shown)
    else:
        heat = figure.subplots()
    _draw_psi(heat, shown, names, heads, titles)
    return figure


def terms_with_psi(found: Mapping[str, Any]) -> list[Entry]:
    """The terms that have Ψ, which the figure is of."""
    return [entry for entry in found["terms"] if entry["mean_psi"]["value"] is not None]


def _is_crowded(heads: Sequence[str]) -> bool:
    """Whether level heads of the axes would overlap."""
    return len(heads) * max(len(line) for head in heads for line in head.split("\n")) > CROWDED


def _draw_psi(
    axes: Axes, entries: Sequence[Entry], names: Sequence[str], heads: Sequence[str], titles: Sequence[str]
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("psi", [VERMILION, "#FFFFFF", BLUE])
    rows = [[_value(entry["psi"][name]) for name in names] + [float("nan")] * 2 for entry in entries]
    axes.imshow(rows, cmap=colors, vmin=-1, vmax=1, aspect="auto", interpolation="none")
    for position, entry in enumerate(entries):
        for column, name in enumerate(names):
            axes.text(column, position, _said(entry["psi"][name]), **_looks(_value(entry["psi"][name])))
        mean = entry["mean_psi"]
        starred = mean["p_adjusted"] is not None and mean["p_adjusted"] <= 0.05
        text = _signed(mean["value"]) + ("*" if starred else "")
        axes.text(len(names), position, text, **_looks(0.0) | {"weight": "bold"})
        text, color = _information(entry["information"])
        axes.text(len(names) + 1, position, text, **_looks(0.0) | {"color": color})
    axes.set_xticks(range(len(heads) + 2), [*heads, "Ψ", "K"])
    axes.set_yticks(range(len(entries)), [plain(title, 34) for title in titles])
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    if _is_crowded(heads):
        for label in axes.get_xticklabels()[: len(heads)]:
            label.set(rotation=40, ha="left", rotation_mode="anchor")
    axes.spines[:].set_visible(False)


def _draw_errors(axes: Axes, entries: Sequence[Entry]) -> None:
    """The median, the 90 % quantile and the worst of a term's environments, on one line each."""
    for position, entry in enumerate(entries):
        error = entry["sign_error"]
        if error is None:
            continue
        middle, high = error["quantiles"]["0.5"], error["quantiles"]["0.9"]
        axes.plot([middle, error["worst"]], [position] * 2, color=LIGHT, lw=1.6, zorder=1)
        axes.plot(middle, position, **MEDIAN)
        axes.plot(high, position, **HIGH)
        axes.plot(error["worst"], position, **WORST)
        if error["expected_worst"] is not None:
            axes.plot(error["expected_worst"], position, **CHANCE)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.axvline(0.5, color=GRAY, lw=0.6, ls=":")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.tick_params(labelleft=False, left=False)
    axes.set_xlabel("sign error")
    grid(axes, "x")


MEDIAN: dict[str, Any] = {"marker": "o", "ls": "", "ms": 3.6, "mfc": "white", "mec": INK, "mew": 0.8}
HIGH: dict[str, Any] = {"marker": "|", "ls": "", "ms": 6, "mec": INK, "mew": 0.9}
WORST: dict[str, Any] = {"marker": "o", "ls": "", "ms": 3.6, "mfc": INK, "mec": INK}
CHANCE: dict[str, Any] = {"marker": "x", "ls": "", "ms": 3.4, "mec": GRAY, "mew": 0.8}


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    said = ((MEDIAN, "median environment"), (HIGH, "90 %"), (WORST, "worst"), (CHANCE, "worst of a random order"))
    return [Line2D([], [], label=label, **looks) for looks, label in said]


def _value(found: Entry | None) -> float:
    return float("nan") if found is None else float(found["value"])


def _said(found: Entry | None) -> str:
    if found is None:
        return "–"
    return "tied" if found["num_tied_in_term"] == found["num_pairs"] else _signed(found["value"])


def _looks(value: float) -> dict[str, Any]:
    return {"ha": "center", "va": "center", "fontsize": 6.2, "color": "white" if abs(value) > 0.6 else INK}


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _information(found: Entry | None) -> tuple[str, str]:
    """K and its colour: gray if it is no more than by chance."""
    if found is None:
        return "–", INK
    by_chance = found["expected"] is not None and found["value"] <= found["expected"]
    return f"{found['value']:.3f}", GRAY if by_chance else INK


def _caption(found: Mapping[str, Any], shown: Sequence[Entry], num_left_out: int) -> str:
    sentences = [
        f"{counted_in_words(found['n'], 'row')}. ψ: Kendall's τ among rows that differ along this axis only, mean over "
        "such lines; tied: the term does not change along it. Ψ: the mean of ψ, which sorts the terms"
        + ("; *: adjusted p at most 0.05." if any(_has_p(entry) for entry in shown) else "; no p is known.")
    ]
    sentences.append(
        "K: what the order of the term says of that of the accuracy once two axes are known, as a share of what is "
        "open; gray: no more than by chance."
    )
    if any(entry["sign_error"] for entry in shown):
        sentences.append(
            "Sign error: the share of pairs that the term, by its predicted sign, orders wrongly between two settings "
            f"of an axis, all else equal, without {found['noise']['num_left_out']:,} of "
            f"{found['noise']['num_pairs']:,} pairs within noise."
        )
    if num_left_out:
        sentences.append(f"Not drawn: {counted_in_words(num_left_out, 'term')}.")
    return " ".join(sentences)


def _has_p(entry: Entry) -> bool:
    return entry["mean_psi"]["p"] is not None
