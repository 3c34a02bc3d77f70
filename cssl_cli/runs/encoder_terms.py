"""The terms of tables of features: of encoders, and of control encoders beside them; wherever the features are from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from cssl_cli.features.geometry import unit_norm
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.runs.concentrate import concentration_in_features
from cssl_cli.runs.views import Measured
from cssl_cli.theory.analysis import Absent, LossSettings, analyze_table
from cssl_cli.theory.control_encoders import control_features

DEFAULT_TEMPERATURE = 0.5  # of the losses, for a method that has none
# Bounds that assume a function of the image, or that need a long search for main parts.
NOT_OF_CONTROLS = ("R_epsilon_bounds", "theorem_1", "explicit_tau")


@dataclass(frozen=True)
class EncoderTerms:
    """Measures the terms of every encoder: on the same images and views, with the same settings."""

    seed: int
    settings: Mapping[str, Any]  # of the analyze block
    measured: Measured
    loss: LossSettings
    reporter: Reporter

    def of_encoders(self, raw: Mapping[str, Tensor]) -> dict[str, Any]:
        """All terms of all encoders, as JSON types."""
        return {name: part() for name, part in self.parts(raw).items()}

    def parts(self, raw: Mapping[str, Tensor]) -> dict[str, Callable[[], dict[str, Any]]]:
        """What measures the terms of each encoder."""
        return {
            name: partial(self.of, name, features, raw.get("untrained") if name == "trained" else None)
            for name, features in raw.items()
        }

    def of_controls(self, raw: Mapping[str, Tensor]) -> dict[str, Any]:
        """The terms of the control encoders; `concentration` too, if it is measured for the trained encoder.

        A control that cannot be made has a `reason` instead.
        """
        made = control_features(
            raw["trained"],
            self.measured.labels,
            num_classes=len(self.measured.class_names),
            generator=stream(self.seed, "controls"),
        )
        return {
            name: {"reason": table.reason} if isinstance(table, Absent) else self._of_control(name, table, raw)
            for name, table in made.items()
        }

    def _of_control(self, name: str, table: Tensor, raw: Mapping[str, Tensor]) -> dict[str, Any]:
        found = self.of(f"{name.replace('_', '-')} control's", table, raw.get("untrained"), without=NOT_OF_CONTROLS)
        if "trained" in self.settings["distances"]:
            found["concentration"] = concentration_in_features(
                name, self.measured, self.settings, table, self.seed, self.reporter
            )
        return found

    def of(
        self, name: str, features: Tensor, baseline: Tensor | None, *, without: Collection[str] = ()
    ) -> dict[str, Any]:
        """The terms of raw `features` (N, V, D), as JSON types; ARC compares with `baseline`."""
        on_device = features.to(self.measured.device)
        terms = analyze_table(
            unit_norm(on_device.double()),  # float32 would lose the smallest distances
            self.measured.labels,
            class_names=self.measured.class_names,
            epsilons=self.settings["epsilons"],
            bootstrap=self.settings["bootstrap"],
            loss=self.loss,
            raw=on_device,
            theta=self.measured.view_parameters,
            baseline=None if baseline is None else baseline.to(self.measured.device),
            generator=stream(self.seed, "bootstrap"),
            without=without,
            advance=partial(self.reporter.advance, f"terms of the {name} features"),
        )
        return {term: as_dicts(quantities) for term, quantities in terms.items()}


def as_dicts(quantities: Mapping[str, Any]) -> dict[str, Any]:
    """Quantities as JSON types."""
    return {name: entry.to_dict() for name, entry in quantities.items()}
