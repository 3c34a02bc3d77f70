"""What the table of terms (`theory/terms.py`) says of each term; plain data, which loads without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from importlib import import_module
from typing import Any, Final, Literal

Direction = Literal["unbiased", "low", "high", "either", "consistent", "exact for the table"]
"""How an estimate errs against the full augmentation and the population of images.

`unbiased`; on average too `low` or too `high`; `either`, few views pushing one way and few images the other;
`consistent`, a smooth function of unbiased numbers whose bias vanishes as the images grow in number; or `exact for the
table`, a fact (or a certain bound) about the stored images and views, or a constant.
"""

UNBIASED: Final[Direction] = "unbiased"
LOW: Final[Direction] = "low"
HIGH: Final[Direction] = "high"
EITHER: Final[Direction] = "either"
CONSISTENT: Final[Direction] = "consistent"
EXACT: Final[Direction] = "exact for the table"

Rounding = Literal["nearest", "up", "down"]  # a bound is never shown as tighter than it is
ARROWS: Final[Mapping[int | None, str]] = {1: " ↑", -1: " ↓", None: ""}

# Where concentration is measured, and what that is called in a column or a sentence.
DISTANCES: Final[Mapping[str, str]] = {
    "pixels": "pixels",
    "standardized_pixels": "std. pixels",
    "untrained": "untrained",
    "trained": "trained",
}


class In(Flag):
    """Where a quantity is shown, apart from the table of its section, `--json` and docs/terms.md."""

    SUMMARY = auto()  # a row of `cssl analyze`, a column of several runs side by side
    SWEEP = auto()  # a quantity of sweeps: table.json, table.csv, rank correlations, claims, --sort
    COLUMN = auto()  # a column of the table that `cssl sweep` prints, and of --versus
    FIGURE = auto()  # a panel of accuracy_vs_terms
    CONTROLS = auto()  # a row of the table of control encoders, which may fool it
    NOWHERE = 0


EVERYWHERE: Final = In.SUMMARY | In.SWEEP | In.COLUMN | In.FIGURE | In.CONTROLS


@dataclass(frozen=True)
class Point:
    """The point at which a curve is quoted: that of its grid, a setting, which is nearest to `target`.

    words: the point in a label, with a place for the value. unit: a quantity, and its entry, of which the grid counts
    multiples: where it is 0 no point is meant.
    """

    grid: Literal["epsilons", "deltas"]
    target: float
    words: str
    unit: tuple[str, str] | None = None

    def place(self, grid: Sequence[float]) -> int:
        """The position in the grid."""
        return min(range(len(grid)), key=lambda position: abs(grid[position] - self.target))

    def value(self, grid: Sequence[float]) -> float:
        """The value of the grid there."""
        return grid[self.place(grid)]


@dataclass(frozen=True)
class Declared:
    """A quantity of a term, declared once.

    name: in the term's part of analysis.json. errs: how its estimate errs. label: in the table of its section; one that
    begins with blanks stands under the row before it.

    table: the table of its section that it is a row of, "" for the term's, None for none. after: the row ("term.name")
    under which it stands, "" for the order of declaration. condition: it meets a condition or does not, which is not
    being vacuous. share: a share, shown in %.

    shown: where else it is shown; also: for a quantity in several distances, in which of them it is shown elsewhere
    besides. key: its name in sweeps and of control encoders, with {distance} where it is measured in several; its own
    name if "". called: what it is called outside its section, the label if "". head: of a narrow column, what it is
    called if "". meaning: the legend, with {epsilon}, {delta} and {views} where they matter. expected: +1 where the
    theory expects better encoders to have more of it, −1 where less. scale, digits: of a sweep's table, if not those of
    a share or a number. of_views: whether it depends on the number of views or on a grid, so that only alike
    measurements can be compared.

    axes: of a value that is no single number, the axes of its lists and mappings, outermost first. Mappings are by
    `class`, by `share` (keys that are numbers) or by `name`. Lists have as many entries as there are `classes`,
    `views`, `further views` (less the clean one), `epsilons` or `deltas` in the settings; along any other axis, as many
    as the term's other quantities. () for a name that ends in _per_class means by class.

    point: where a curve is quoted. complement: one less it is meant. band: the quantity that bounds it from the other
    side. parts: numerator and denominator of a ratio that is absent where one of them is lost in its noise.
    """

    name: str
    errs: Direction
    label: str
    table: str | None = ""
    after: str = ""
    condition: bool = False
    share: bool = False
    shown: In = In.NOWHERE
    also: Mapping[str, In] = field(default_factory=dict)
    key: str = ""
    called: str = ""
    head: str = ""
    meaning: str = ""
    expected: Literal[1, -1] | None = None
    scale: float | None = None
    digits: int | None = None
    of_views: bool = False
    point: Point | None = None
    complement: bool = False
    band: str = ""
    parts: tuple[str, str] | None = None
    axes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[str, ...]:
        """Its axes, those that its name implies included."""
        return self.axes or (("class",) if self.name.endswith("_per_class") else ())

    @property
    def known_as(self) -> str:
        """Its name in sweeps and of control encoders."""
        return self.key or self.name

    @property
    def name_outside(self) -> str:
        """What it is called outside its section."""
        return self.called or self.label.strip()

    @property
    def rounding(self) -> Rounding:
        """Away from what is bounded."""
        if self.name.endswith("_bound") or "≤" in self.label:
            return "up"
        return "down" if "≥" in self.label or self.name.endswith("_floor") else "nearest"


def also(name: str, errs: Direction, label: str, *axes: str) -> Declared:
    """A quantity that is in analysis.json, and in no table of the form of a row a quantity."""
    return Declared(name, errs, label, table=None, axes=axes)


@dataclass(frozen=True)
class Term:
    """A term of the theory: the function that measures it and the quantities that this gives.

    name: in analysis.json. function: "module:name", the module relative to `cssl_cli.theory` if it begins with a dot;
    its parameters are filled with what `analysis.Pieces` has under their names. pieces: for parameters that take
    another piece, its name. settings: for those that take a constant, the value. table: the table of the section that
    its quantities are rows of, "" for the section's own, None for none. of: what it is measured on: the `features` of
    an encoder, every `distance`, the `encoder` itself, or before training the `augmentation`, which is in rank.json of
    a sweep and not in analysis.json; the latter three are measured by `cssl_cli.runs`.
    """

    name: str
    section: str
    function: str
    quantities: tuple[Declared, ...]
    table: str | None = ""
    of: Literal["features", "distance", "encoder", "augmentation"] = "features"
    pieces: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The full name of the function's module."""
        name = self.function.partition(":")[0]
        return f"cssl_cli.theory{name}" if name.startswith(".") else name

    def load(self) -> Callable[..., Any]:
        """The function; imports its module."""
        function: Callable[..., Any] = getattr(import_module(self.module), self.function.partition(":")[2])
        return function

    @property
    def group(self) -> str:
        """Where its quantities stand in analysis.json: under its name, or with all that is said of a distance."""
        return "concentration" if self.of == "distance" else self.name

    def table_of(self, declared: Declared) -> str | None:
        """The table of which the quantity is a row, None for none."""
        if declared.table is None or self.table is None:
            return None
        return declared.table or self.table or self.section
