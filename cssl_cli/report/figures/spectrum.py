"""The positive-pair spectrum: λ of the leading functions, and how much of the labels so many explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from cssl_cli.report.figures.r_epsilon import LABELS, LOOKS
from cssl_cli.report.figures.style import GRAY, grid, legend_above, new_figure
from cssl_cli.runs.results import direction, gaps, numbers, part, sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Curves(NamedTuple):
    """Over the number of functions: λ, cross-fitted and in-sample, and label energy; None where not measured."""

    functions: list[float]
    eigenvalues: list[float]
    in_sample: list[float] | None
    label_energy: list[float] | None


def spectrum(content: Mapping[str, Any]) -> Figure | None:
    """λ of both encoders and the projector over the functions; beside it their label energy, where there are labels."""
    drawn = {name: curves for name in LOOKS if (curves := _read(part(content, name, "positive_pairs")))}
    if not drawn:
        return None
    labelled = {name: curves.label_energy for name, curves in drawn.items() if curves.label_energy is not None}
    figure = new_figure("Positive-pair spectrum", _caption(content, drawn, bool(labelled)))
    axes, *beside = figure.subplots(1, 2) if labelled else [figure.add_subplot()]
    for name, curves in drawn.items():
        looks = LOOKS[name] | {"ms": 2.6, "lw": 1.1}
        axes.plot(curves.functions, curves.eigenvalues, label=LABELS[name], **looks)
        if curves.in_sample is not None:
            axes.plot(curves.functions, curves.in_sample, color=looks["color"], lw=0.7, alpha=0.7)
        for panel in beside:
            if name in labelled:
                panel.plot(curves.functions, [100 * value for value in labelled[name]], **looks)
    axes.set_ylabel("λ  (share of variance common to the views)")
    axes.set_ylim(-0.03, 1.03)
    _number_of_functions(axes)
    classes = content.get("class_names")
    for panel in beside:
        panel.set_ylabel("label energy  (% of the labels' variance)")
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
        if isinstance(classes, list) and len(classes) > 2:
            panel.axvline(len(classes) - 1, color=GRAY, lw=0.8, ls=(0, (4, 2)))
        _number_of_functions(panel)
    legend_above(figure, axes.get_legend_handles_labels()[0])
    return figure


def _read(quantities: Mapping[str, Any]) -> Curves | None:
    functions = numbers(part(quantities, "functions").get("value"))
    eigenvalues = numbers(part(quantities, "eigenvalues").get("value"))
    if functions is None or eigenvalues is None or len(functions) != len(eigenvalues):
        return None
    in_sample, label_energy = (
        gaps(values)
        if (values := numbers(part(quantities, name).get("value"))) and len(values) == len(functions)
        else None
        for name in ("in_sample", "label_energy")
    )
    return Curves(gaps(functions), gaps(eigenvalues), in_sample, label_energy)


def _caption(content: Mapping[str, Any], drawn: Mapping[str, Curves], labelled: bool) -> str:
    used = [part(content, name, "positive_pairs", "eigenvalues") for name in drawn]
    facts = [sample(*used)]
    facts += [f"λ is {said}" for said in [direction(*used)] if said]
    facts += ["functions from one half of the images, measured on the other"]
    if any(curves.in_sample is not None for curves in drawn.values()):
        facts += ["thin: λ in-sample, the first ones too high"]
    if labelled:
        facts += ["label energy: too low; dashed: as many functions as classes less one"]
    return "; ".join(fact for fact in facts if fact) + "."


def _number_of_functions(axes: Axes) -> None:
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("function, by falling λ" if axes.get_ylabel().startswith("λ") else "leading functions")
    grid(axes)
