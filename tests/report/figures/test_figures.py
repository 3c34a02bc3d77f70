"""The files of the figures: the same bytes every time, none half written, none of an earlier analysis."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cssl_cli.errors import InputError, RunError
from cssl_cli.report.figures import figures
from cssl_cli.report.figures.figures import draw_figures
from cssl_cli.report.figures.style import drawing, new_figure
from tests.support.figures import BOTH, NAMES, NAMES_DRAWN, names_of
from tests.support.forked_process import in_a_process
from tests.support.synthetic_analysis import absent, analysis, trace


@pytest.mark.parametrize("num_classes", [10, 40])
def test_every_figure_is_written_in_both_forms(drawn: dict[int, Path], num_classes: int) -> None:
    both = {f"{name}.{kind}" for name in NAMES_DRAWN[num_classes] for kind in ("png", "svg")}
    assert {path.name for path in drawn[num_classes].iterdir()} == {*both, "figures.json"}
    for name in NAMES_DRAWN[num_classes]:
        with Image.open(drawn[num_classes] / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.width == 1200  # six inches of 200 dots
            assert round(image.info["dpi"][0]) == 200
            assert np.asarray(image.convert("L")).std() > 5
        root = ElementTree.parse(drawn[num_classes] / f"{name}.svg").getroot()
        assert root.tag.endswith("svg")
        assert root.get("width") == "432pt"


@pytest.mark.parametrize("num_classes", [10, 40])
def test_nothing_reaches_the_edge_of_the_page(drawn: dict[int, Path], num_classes: int) -> None:
    for name in NAMES_DRAWN[num_classes]:
        with Image.open(drawn[num_classes] / f"{name}.png") as image:
            pixels = np.asarray(image.convert("L"))
        for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
            assert (edge == 255).all(), name


def test_the_same_numbers_give_the_same_bytes(
    drawn: dict[int, Path], tmp_path: Path, only: Callable[..., None]
) -> None:
    """Of the two figures that the next test but one does not draw in another process."""
    only("concentration")
    again = draw_figures(analysis(10, 300), trace(12), tmp_path)
    assert names_of(again) == {"concentration", "training"}
    for path in again:
        assert path.read_bytes() == (drawn[10] / path.name).read_bytes(), path.name


def test_neither_date_nor_program_is_written_down(drawn: dict[int, Path]) -> None:
    for name in NAMES:
        with Image.open(drawn[10] / f"{name}.png") as image:
            assert set(image.info) == {"dpi"}
        svg = (drawn[10] / f"{name}.svg").read_text(encoding="utf-8")
        assert "<dc:date>" not in svg
        assert "<dc:title>Matplotlib" not in svg


def test_a_settings_file_of_the_users_changes_no_figure(drawn: dict[int, Path], tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\ntext.usetex: True\n")
    in_a_process(draw_with_settings, tmp_path / "matplotlibrc", tmp_path / "figures")
    others = {path for path in (tmp_path / "figures").iterdir() if path.name in BOTH}
    assert {path.stem for path in others} == NAMES - {"concentration", "training"}
    for path in others:
        assert path.read_bytes() == (drawn[10] / path.name).read_bytes(), path.name


def draw_with_settings(settings: Path, folder: Path) -> None:
    """As where matplotlib found this file when it was imported; the figures change none of its settings."""
    import matplotlib

    matplotlib.rcParams.update(matplotlib.rc_params_from_file(settings))
    before = {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
    assert before["font.size"] == 20
    sys.modules.pop("matplotlib.pyplot", None)
    content = {key: value for key, value in analysis(10, 300).items() if key != "concentration"}
    draw_figures(content, [], folder)
    assert "matplotlib.pyplot" not in sys.modules
    assert {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"} == before


def test_letters_that_our_font_lacks_are_taken_of_one_that_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A made-up one, in one weight only, whose glyphs are those of a font that comes with matplotlib."""
    from matplotlib import font_manager

    place = font_manager.findfont("STIXGeneral")
    other = font_manager.FontEntry(fname=place, name="SimHei", style="normal", weight=500)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist, other])
    letter = "\N{PROPERTY LINE}"  # DejaVu Sans has none
    with drawing():
        figure = new_figure("Names", "of classes")
        figure.text(0.5, 0.5, f"cat {letter}")
        figure.savefig(tmp_path / "names.svg")
    fonts = re.findall(r'href="#([A-Za-z]+)', (tmp_path / "names.svg").read_text())
    assert fonts.count("STIXGeneral") == 1
    assert set(fonts) == {"DejaVuSans", "STIXGeneral"}
    assert capfd.readouterr().err == ""


def test_importing_the_package_loads_no_matplotlib(tmp_path: Path) -> None:
    code = """
import sys, pkgutil, importlib, cssl_cli.report.figures
for module in pkgutil.iter_modules(cssl_cli.report.figures.__path__):
    importlib.import_module(f"cssl_cli.report.figures.{module.name}")
assert not {"matplotlib", "torch", "numpy"} & set(sys.modules)
"""
    run_python(code, tmp_path)


def run_python(code: str, folder: Path) -> None:
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@pytest.mark.parametrize(
    "content",
    [{}, {"trained": None, "untrained": None, "concentration": None, "projection": None, "class_names": None}],
)
def test_no_numbers_no_figures(tmp_path: Path, content: dict[str, Any]) -> None:
    for records in ([], [{"epoch": 1, "step": 5, "error": "it diverged"}], [{"epoch": None, "alignment": 0.5}]):
        assert draw_figures(content, records, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_figures_of_an_earlier_analysis_do_not_stay_beside_new_ones(
    tmp_path: Path, only: Callable[..., None], empty: None
) -> None:
    only("r_epsilon", "class_centers", "certificate")
    names = {"r_epsilon", "class_centers", "certificate", "training"}
    content = analysis(3, 60) | {"settings": {"num_views": 8}, "fingerprint": "0123456789"}
    assert names_of(draw_figures(content, trace(3), tmp_path)) == names
    facts = json.loads((tmp_path / "figures.json").read_text())
    assert facts["settings"] == {"num_views": 8}
    assert set(facts["figures"]) == names
    (tmp_path / "mine.png").write_bytes(b"not ours")
    for encoder in ("trained", "projector", "untrained"):
        content[encoder] |= {"R_epsilon": {"epsilons": absent(), "curve": absent()}}
        content[encoder] |= {"class_centers": {"inner_products": absent()}}
    content["settings"] = {"num_views": 1}
    assert names_of(draw_figures(content, [], tmp_path)) == names - {"r_epsilon", "class_centers", "training"}
    left = {path.stem for path in tmp_path.iterdir()}
    assert left == (names | {"figures", "mine"}) - {"r_epsilon", "class_centers", "training"}
    assert json.loads((tmp_path / "figures.json").read_text())["settings"] == {"num_views": 1}
    assert draw_figures({}, [], tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_figures_that_are_there_are_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None], empty: None
) -> None:
    only("certificate")
    content, records = analysis(2, 20), trace(1)[:0]
    drawn = draw_figures(content, records, tmp_path)
    times: list[str] = []

    def draw(content: Any) -> None:
        times.append(content["class_names"][0])

    monkeypatch.setattr(figures, "ANALYSIS_FIGURES", dict.fromkeys(figures.ANALYSIS_FIGURES, draw))
    assert draw_figures(json.loads(json.dumps(content)), records, tmp_path) == drawn
    assert times == []
    for spoil in (
        lambda: drawn[0].unlink(),
        lambda: (tmp_path / "figures.json").unlink(),
        lambda: (tmp_path / "figures.json").write_text('{"drawn_from": 1'),
    ):
        shutil.copytree(tmp_path, before := tmp_path.with_name("before"))
        spoil()
        draw_figures(content, records, tmp_path)
        assert times, spoil
        times.clear()
        shutil.rmtree(tmp_path)
        before.rename(tmp_path)
    draw_figures({**content, "num_images": 7}, records, tmp_path)
    assert times
    times.clear()
    draw_figures({**content, "num_images": 7}, trace(1), tmp_path)
    assert times


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    (tmp_path / "certificate.png").write_bytes(b"the old figure")

    def fail_halfway(_: Figure, file: Path, **__: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Figure, "savefig", fail_halfway)
    content = {"trained": {"certificate_c": analysis(2, 10)["trained"]["certificate_c"]}}
    with pytest.raises(RunError, match="no space left"):
        draw_figures(content, [], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["certificate.png"]
    assert (tmp_path / "certificate.png").read_bytes() == b"the old figure"


def test_a_bug_while_drawing_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.backends.backend_svg import RendererSVG

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(RendererSVG, "draw_path", fail)
    content = {"trained": {"certificate_c": analysis(2, 10)["trained"]["certificate_c"]}}
    with pytest.raises(ZeroDivisionError):
        draw_figures(content, [], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["certificate.png"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        draw_figures({}, [], tmp_path / "file" / "figures")


def test_figures_are_drawn_from_several_threads(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    content = {"trained": {"certificate_c": analysis(2, 10)["trained"]["certificate_c"]}}
    with ThreadPoolExecutor(2) as pool:
        for paths in pool.map(lambda i: draw_figures(content, [], tmp_path / str(i)), range(2)):
            assert names_of(paths) == {"certificate"}
    first, *others = [[path.read_bytes() for path in sorted((tmp_path / str(i)).iterdir())] for i in range(2)]
    assert all(other == first for other in others)
