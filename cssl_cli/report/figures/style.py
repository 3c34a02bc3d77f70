"""How figures look, and how they are written: the same bytes for the same numbers, whole or not at all.

Colours are those of Okabe and Ito, distinguishable with every kind of colour vision; markers and line styles differ as
well, so that figures work in greyscale. Figures are drawn on their own canvases, without pyplot or a display.
matplotlib's settings are global to the process: `drawing` sets them while drawing, lets only one thread draw at a time,
and restores them afterwards.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cssl_cli.host.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (6.0, 4.0)  # inches
DPI = 200
MARGIN, TITLE_HEIGHT, LEGEND_HEIGHT, LINE_HEIGHT = 0.07, 0.27, 0.17, 0.128  # inches

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
TRAINED, UNTRAINED = BLUE, ORANGE
INK, GRAY, LIGHT = "#222222", "#767676", "#DDDDDD"
CLASS_COLORS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h", "d")
MARKER_SCALES = {"*": 1.5, "D": 0.9, "P": 1.15, "X": 1.15, "p": 1.1, "h": 1.1, "d": 1.1}  # to look equally large

# Without dates and versions: the same numbers give the same bytes.
KINDS: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}

CAPTION_SIZE = 6.8  # points
CAPTION_WIDTH = 119  # characters of it per line at SIZE[0] inches

FONT = "DejaVu Sans"  # comes with matplotlib: the same glyphs everywhere
# Where a machine has one, for the letters of class names that our font lacks: Chinese, Japanese and Korean ones.
OTHER_FONTS = (
    *(f"{family} {script}" for family in ("Noto Sans CJK", "Source Han Sans") for script in ("SC", "TC", "JP", "KR")),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS"),
)

_SETTINGS: dict[str, Any] = {
    "font.size": 8,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.titlelocation": "left",
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "grid.color": LIGHT,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "hatch.linewidth": 0.4,
    "svg.hashsalt": "cssl",
    "svg.fonttype": "path",
}
REMEDY = "Make the folder writable, or leave the figures out with --no-figures."
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib with our settings only: a user's matplotlibrc changes no figure."""
    import matplotlib

    with _ONE_AT_A_TIME, warnings.catch_warnings():
        # The font may lack letters of a class name and draws boxes instead; no warning for each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", category=matplotlib.MatplotlibDeprecationWarning)
        ours = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
        with matplotlib.rc_context(ours | _SETTINGS | {"font.family": _fonts()}), _silenced("matplotlib.font_manager"):
            yield


@contextmanager
def _silenced(logger: str) -> Iterator[None]:
    """Without the warnings of a library's logger: here of fonts that are not there in every weight."""
    level = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(level)


def _fonts() -> list[str]:
    """Of each letter, the first that has it is taken; a font that is not there would cost a warning for each text."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [FONT, *(name for name in OTHER_FONTS if name in installed)]


def new_figure(title: str, caption: str, size: tuple[float, float] = SIZE) -> Figure:
    """A figure with a title above and a caption below the space for its content.

    Both may contain formulas; text from a user must go through `plain` first.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = size
    lines = _wrap(caption, round(CAPTION_WIDTH * width / SIZE[0]))
    foot = (MARGIN + LINE_HEIGHT * len(lines)) / height
    head = TITLE_HEIGHT / height
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    _engine(figure).set(w_pad=MARGIN, h_pad=MARGIN, wspace=0.03, hspace=0.03, rect=(0, foot, 1, 1 - foot - head))
    left = MARGIN / width
    figure.text(left, 1 - MARGIN / height, title, size=10, weight="bold", va="top")
    looks: dict[str, Any] = {"size": CAPTION_SIZE, "color": GRAY, "linespacing": 1.3}
    figure.text(left, MARGIN / height, "\n".join(lines), va="bottom", **looks)
    return figure


def legend_above(figure: Figure, handles: Sequence[Any], columns: int | None = None) -> None:
    """A legend between the title and the axes, which make room for it."""
    columns = columns or len(handles)
    left, bottom, width, height = _engine(figure).get()["rect"]
    top = bottom + height
    strip = LEGEND_HEIGHT * -(-len(handles) // columns) / figure.get_figheight()
    _engine(figure).set(rect=(left, bottom, width, height - strip))
    anchor = (MARGIN / figure.get_figwidth(), top)
    looks: dict[str, Any] = {"borderpad": 0, "borderaxespad": 0, "columnspacing": 1.4}
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, ncols=columns, **looks)


def legend_beside(figure: Figure, handles: Sequence[Any], columns: int = 1, size: float = 7) -> None:
    """A legend to the right of the axes, which make room for it."""
    left, bottom, width, height = _engine(figure).get()["rect"]
    anchor = (1 - MARGIN / figure.get_figwidth(), bottom + height)
    looks: dict[str, Any] = {"borderpad": 0, "borderaxespad": 0, "columnspacing": 0.9, "labelspacing": 0.4}
    looks |= {"handlelength": 1.0, "handletextpad": 0.4, "fontsize": size}
    legend = figure.legend(handles=handles, loc="upper right", bbox_to_anchor=anchor, ncols=columns, **looks)
    canvas: Any = figure.canvas
    taken = legend.get_window_extent(canvas.get_renderer()).width / figure.dpi + 2 * MARGIN
    _engine(figure).set(rect=(left, bottom, width - taken / figure.get_figwidth(), height))


def _engine(figure: Figure) -> Any:
    return figure.get_layout_engine()


def _wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` letters as drawn; a formula counts as three."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and len(re.sub(r"\$[^$]*\$", "xxx", longer)) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def lay_out(figure: Figure) -> None:
    """Give everything its place; drawing the figure would do so, too, and take longer."""
    _engine(figure).execute(figure)


def fix_layout(figure: Figure) -> None:
    """Lay the figure out once: all formats share one layout."""
    for _ in range(2):  # fitting to the page changes the ticks, which changes the fit
        lay_out(figure)
    figure.set_layout_engine(None)  # "none" would lay out each format again


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name`.png and `name`.svg in `folder`, each whole or not at all."""
    fix_layout(figure)
    paths = []
    for kind, metadata in KINDS.items():
        path = folder / f"{name}.{kind}"
        with replacing(path, REMEDY) as partial:
            figure.savefig(partial, format=kind, dpi=DPI, metadata=metadata)
        paths.append(path)
    return paths


def grid(axes: Axes, axis: str = "both") -> None:
    """Thin lines behind the data."""
    axes.grid(True, axis=axis)


def plain(text: str, limit: int | None = None) -> str:
    """Any text as one line of printable characters, drawn literally.

    Beyond `limit` characters the middle is left out: names often differ only at their ends.
    """
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
    if limit is not None and len(line) > limit:
        line = line[: (limit - 1) // 2] + "…" + line[-(limit // 2) :]
    return line.replace("$", r"\$")  # a dollar would start a formula


def class_marker(label: int, size: float) -> dict[str, Any]:
    """The colour and marker of a class, distinct for up to 8 × 13 classes."""
    marker = MARKERS[(label // len(CLASS_COLORS) + label) % len(MARKERS)]
    color = CLASS_COLORS[label % len(CLASS_COLORS)]
    return {"color": color, "marker": marker, "ms": size * MARKER_SCALES.get(marker, 1), "ls": ""}
