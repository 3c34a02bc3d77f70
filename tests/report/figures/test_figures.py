"""The figures: what is drawn from which numbers, the same bytes every time, and no file half written."""

from __future__ import annotations

import copy
import errno
import html
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cssl_cli.errors import InputError, RunError
from cssl_cli.report.figures import figures
from cssl_cli.report.figures.figures import draw_figures
from tests.support.synthetic_analysis import absent, analysis, class_names, trace

NAMES = {"concentration", "r_epsilon", "class_centers", "projection", "training", "certificate", "theorem_1"}
BOTH = {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The figures of 2, 10 and 40 classes, with a trace of one record and two longer ones."""
    folders = {}
    for num_classes, num_records in ((2, 1), (10, 12), (40, 60)):
        folders[num_classes] = tmp_path_factory.mktemp(f"classes{num_classes}")
        paths = draw_figures(analysis(num_classes, 300), trace(num_records), folders[num_classes])
        assert {path.name for path in paths} == BOTH
    return folders


def names_of(paths: list[Path]) -> set[str]:
    return {path.stem for path in paths if path.suffix == ".png"}


def texts_of(path: Path) -> str:
    """What is written in an SVG: matplotlib keeps each text as a comment beside its outlines."""
    comments = ElementTree.TreeBuilder(insert_comments=True)
    tree = ElementTree.parse(path, ElementTree.XMLParser(target=comments))
    return html.unescape("\n".join(str(node.text) for node in tree.iter() if node.tag is ElementTree.Comment))


@pytest.mark.parametrize("num_classes", [2, 10, 40])
def test_every_figure_is_written_in_both_forms(drawn: dict[int, Path], num_classes: int) -> None:
    assert {path.name for path in drawn[num_classes].iterdir()} == {*BOTH, "figures.json"}
    for name in NAMES:
        with Image.open(drawn[num_classes] / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.width == 1200  # six inches of 200 dots
            assert round(image.info["dpi"][0]) == 200
            assert np.asarray(image.convert("L")).std() > 5
        root = ElementTree.parse(drawn[num_classes] / f"{name}.svg").getroot()
        assert root.tag.endswith("svg")
        assert root.get("width") == "432pt"


@pytest.mark.parametrize("num_classes", [2, 10, 40])
def test_nothing_reaches_the_edge_of_the_page(drawn: dict[int, Path], num_classes: int) -> None:
    for name in NAMES:
        with Image.open(drawn[num_classes] / f"{name}.png") as image:
            pixels = np.asarray(image.convert("L"))
        for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
            assert (edge == 255).all(), name


def test_the_same_numbers_give_the_same_bytes(drawn: dict[int, Path], tmp_path: Path) -> None:
    draw_figures(analysis(10, 300), trace(12), tmp_path)
    for name in BOTH:
        assert (tmp_path / name).read_bytes() == (drawn[10] / name).read_bytes(), name


def test_neither_date_nor_program_is_written_down(drawn: dict[int, Path]) -> None:
    for name in NAMES:
        with Image.open(drawn[10] / f"{name}.png") as image:
            assert set(image.info) == {"dpi"}
        svg = (drawn[10] / f"{name}.svg").read_text(encoding="utf-8")
        assert "<dc:date>" not in svg
        assert "<dc:title>Matplotlib" not in svg


def test_a_settings_file_of_the_users_changes_no_figure(drawn: dict[int, Path], tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\ntext.usetex: True\n")
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from pathlib import Path
from tests.support.synthetic_analysis import analysis, trace
from cssl_cli.report.figures import figures
from cssl_cli.report.figures.figures import draw_figures
import matplotlib
settings = lambda: {{key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}}
before = settings()
assert before["font.size"] == 20
draw_figures({{key: value for key, value in analysis(10, 300).items() if key != "concentration"}}, [], Path("figures"))
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
"""
    run_python(code, tmp_path)
    for name in ("r_epsilon.png", "certificate.svg", "class_centers.svg"):
        assert (tmp_path / "figures" / name).read_bytes() == (drawn[10] / name).read_bytes()


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


def test_sample_sizes_and_directions_of_error_are_said(drawn: dict[int, Path]) -> None:
    said = {name: texts_of(drawn[10] / f"{name}.svg") for name in NAMES}
    for name in ("concentration", "r_epsilon", "certificate"):
        assert "1,000 images, 8 views" in said[name]
    assert "1,000 images, 7 views" in said["class_centers"]
    assert "300 images, 1 view" in said["projection"]
    for name, words in {
        "concentration": "too high for the full",
        "r_epsilon": "too low for the full augmentation",
        "class_centers": "unbiased",
        "projection": "too low: the plane shows 48 % of the variance",
        "training": "too low for the full augmentation",
        "certificate": "exact for these images and views",
    }.items():
        assert words in said[name], name


def test_names_and_values_of_the_classes_are_drawn(drawn: dict[int, Path]) -> None:
    said = texts_of(drawn[10] / "class_centers.svg").splitlines()
    lines = [line.strip() for line in said]
    for name in class_names(10):
        assert lines.count(name) == 2
    matrix = analysis(10, 300)["trained"]["class_centers"]["inner_products"]["value"]
    assert lines.count(f"{matrix[0][0]:.2f}") >= 1
    assert "regular simplex, −0.111" in "\n".join(lines)
    many = texts_of(drawn[40] / "class_centers.svg")
    assert f"{matrix[0][0]:.2f}" not in many
    for name in class_names(40):
        assert name in many
        assert name in texts_of(drawn[40] / "projection.svg")


def test_what_is_absent_is_not_drawn(tmp_path: Path) -> None:
    content = analysis(3, 60)
    content["class_names"] = None
    content["concentration"] = {"trained": {"deltas": absent(), "mean_sigma_low": absent()}}
    content["trained"]["class_centers"]["inner_products"] = absent()
    content["trained"]["certificate_c"]["by_views"] = content["trained"]["population"]["by_views"] = absent()
    content["trained"]["lemma_3_1"]["slack"] = absent()
    content["projection"] |= {"labels": None, "centers": None}
    for encoder in ("untrained", "projector"):
        content[encoder]["R_epsilon"] = {"epsilons": absent(), "curve": absent(), "curve_by_views": absent()}
    assert names_of(draw_figures(content, [], tmp_path)) == {"r_epsilon", "projection"}
    said = texts_of(tmp_path / "r_epsilon.svg")
    assert " trained encoder" in said
    assert "untrained" not in said
    assert "projector" not in said


def test_the_projector_and_the_growth_with_the_views_are_drawn(drawn: dict[int, Path], tmp_path: Path) -> None:
    said = texts_of(drawn[10] / "r_epsilon.svg")
    for words in ("its projector", "stored views", "ε = 0.4", "ε = 0.7", "ε = 1", "would raise it further"):
        assert words in said
    content = analysis(3, 60)
    for values in ([absent()["value"]], None, [[0.1] * 15]):
        content["trained"]["R_epsilon"]["curve_by_views"]["value"] = values
        draw_figures(content, [], tmp_path)
        assert "stored views" not in texts_of(tmp_path / "r_epsilon.svg")


def test_the_scale_of_the_class_centres_is_that_of_all_inner_products(tmp_path: Path) -> None:
    from cssl_cli.report.figures.class_centers import class_centers
    from cssl_cli.report.figures.style import drawing

    for matrix, ends in (([[0.45, 0.40], [0.40, 0.51]], (0, 1)), ([[0.45, -0.01], [-0.01, 0.51]], (-1, 1))):
        content = {"trained": {"class_centers": {"inner_products": {"value": matrix}}}}
        with drawing():
            figure = class_centers(content)
        assert figure is not None
        assert figure.axes[0].images[0].get_clim() == ends


@pytest.mark.parametrize(
    ("dropped", "words"),
    [("mean_inner_product", "; alignment is unbiased"), ("alignment", "; inner products are unbiased")],
)
def test_the_caption_of_training_speaks_of_what_is_drawn(tmp_path: Path, dropped: str, words: str) -> None:
    records = [{key: value for key, value in record.items() if key != dropped} for record in trace(5)]
    draw_figures({}, records, tmp_path)
    assert words in " ".join(texts_of(tmp_path / "training.svg").split())


@pytest.mark.parametrize(
    "content",
    [{}, {"trained": None, "untrained": None, "concentration": None, "projection": None, "class_names": None}],
)
def test_no_numbers_no_figures(tmp_path: Path, content: dict[str, Any]) -> None:
    for records in ([], [{"epoch": 1, "step": 5, "error": "it diverged"}], [{"epoch": None, "alignment": 0.5}]):
        assert draw_figures(content, records, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_figures_of_an_earlier_analysis_do_not_stay_beside_new_ones(tmp_path: Path) -> None:
    content = analysis(3, 60) | {"settings": {"num_views": 8}, "fingerprint": "0123456789"}
    assert names_of(draw_figures(content, trace(3), tmp_path)) == NAMES
    facts = json.loads((tmp_path / "figures.json").read_text())
    assert facts["settings"] == {"num_views": 8}
    assert set(facts["figures"]) == NAMES
    (tmp_path / "mine.png").write_bytes(b"not ours")
    for encoder in ("trained", "projector", "untrained"):
        content[encoder] |= {"R_epsilon": {"epsilons": absent(), "curve": absent()}}
        content[encoder] |= {"class_centers": {"inner_products": absent()}}
    content["settings"] = {"num_views": 1}
    assert names_of(draw_figures(content, [], tmp_path)) == NAMES - {"r_epsilon", "class_centers", "training"}
    left = {path.stem for path in tmp_path.iterdir()}
    assert left == (NAMES | {"figures", "mine"}) - {"r_epsilon", "class_centers", "training"}
    assert json.loads((tmp_path / "figures.json").read_text())["settings"] == {"num_views": 1}
    assert draw_figures({}, [], tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_figures_that_are_there_are_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, records = analysis(2, 20), trace(1)
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
    draw_figures(content, trace(2), tmp_path)
    assert times
    times.clear()
    draw_figures({**content, "num_images": 7}, trace(2), tmp_path)
    assert times


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each entry of a mapping, and to the first and the last one of each list."""
    keys = list(value) if isinstance(value, dict) else []
    if isinstance(value, list) and value:
        keys = sorted({0, len(value) - 1})
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def read_by_figures() -> dict[str, Any]:
    """An analysis of two classes with only what the figures read."""
    content = analysis(2, 4)
    trained = content["trained"]
    for entry in (*trained["R_epsilon"].values(), *trained["R_epsilon_bounds"].values()):
        entry["value"] = entry["value"][:2]
    trained["R_epsilon"]["curve_by_views"]["value"] = [[0.1, 0.05], [0.4, 0.2]]
    trained["R_epsilon"]["curve"]["interval"] = [[0.1, 0.9]] * 2
    for entry in trained["lemma_3_1"].values():
        entry["value"] = [row[:2] if isinstance(row, list) else row for row in entry["value"][:2]]
    curve = content["concentration"]["trained"]
    for name in ("deltas", "mean_sigma_low", "mean_sigma_high"):
        curve[name]["value"] = curve[name]["value"][:2]
    curve["sigma_low_per_class"]["value"] = {"plane": [0.1, None], "car": None}
    curve = {name: curve[name] for name in ("deltas", "mean_sigma_low", "mean_sigma_high", "sigma_low_per_class")}
    return content | {"concentration": {"trained": curve}, "trained": trained, "projector": None, "untrained": None}


def test_a_null_at_any_place_harms_no_figure() -> None:
    """Each entry in turn is null or no number; the figures are laid out and not written, to be quick."""
    from cssl_cli.report.figures.figures import ANALYSIS_FIGURES
    from cssl_cli.report.figures.style import drawing
    from cssl_cli.report.figures.training import training

    reads = {
        "concentration": ["concentration"],
        "projection": ["projection"],
        "class_names": ["projection", "class_centers"],
        "R_epsilon": ["r_epsilon"],
        "R_epsilon_bounds": ["r_epsilon"],
        "class_centers": ["class_centers"],
        "certificate_c": ["certificate"],
        "center_error": ["certificate"],
        "population": ["certificate"],
        "lemma_3_1": ["theorem_1"],
    }
    spoilt = (None, float("nan"), [], {}, "words")
    content, records = read_by_figures(), trace(2)
    with drawing():
        for i, path in enumerate(places(content)):
            for name in reads.get(path[1] if path[0] == "trained" and len(path) > 1 else path[0], ()):
                ANALYSIS_FIGURES[name](replaced(content, path, spoilt[i % 5]))
        for i, path in enumerate(places(records)):
            training(replaced(records, path, spoilt[i % 5]))


def test_a_bound_above_one_is_clipped_and_said_to_be_vacuous(tmp_path: Path) -> None:
    from cssl_cli.report.figures.r_epsilon import clipped

    below, above = clipped([(0.5, 3.0), (1.0, 2.0), (2.0, 0.5), (3.0, 0.25)])
    crossing = (1 + 2 / 3, 1.0)
    assert above == [[(0.5, 1.0), (1.0, 1.0), pytest.approx(crossing)]]
    assert below == [[pytest.approx(crossing), (2.0, 0.5), (3.0, 0.25)]]
    assert clipped([(0.5, 3.0)]) == ([], [[(0.5, 1.0)]])
    assert clipped([(0.5, 0.9)]) == ([[(0.5, 0.9)]], [])
    content = {"trained": analysis(2, 10)["trained"]}
    draw_figures(content, [], tmp_path)
    assert "bound vacuous here" in texts_of(tmp_path / "r_epsilon.svg")
    content["trained"]["R_epsilon_bounds"]["stored_views"]["value"] = [0.5] * 15
    draw_figures(content, [], tmp_path)
    assert "vacuous" not in texts_of(tmp_path / "r_epsilon.svg")


def test_the_certificate_of_new_images_leads_and_is_vacuous_from_chance_on(tmp_path: Path) -> None:
    content = {"trained": analysis(4, 10)["trained"]}
    draw_figures(content, [], tmp_path)
    said = texts_of(tmp_path / "certificate.svg")
    for words in (
        "certified, new images",
        "error, own centres",
        "vacuous: from chance, 0.75, on",
        "500 images, 8 views",
    ):
        assert words in said
    assert said.index("certified, new images") < said.index("certified, own centres")
    del content["trained"]["certificate_c"], content["trained"]["center_error"]
    draw_figures(content, [], tmp_path)
    said = texts_of(tmp_path / "certificate.svg")
    assert "certified, new images" in said
    assert "own centres" not in said


def test_the_map_of_the_condition_says_whether_it_holds_anywhere(tmp_path: Path) -> None:
    content = {"trained": analysis(4, 10)["trained"]}
    draw_figures(content, [], tmp_path)
    holds = np.array(content["trained"]["lemma_3_1"]["slack"]["value"]) > 0
    assert 0 < holds.sum() < holds.size
    said = texts_of(tmp_path / "theorem_1.svg")
    assert f"above 0 at {holds.sum()} of 100 places" in " ".join(said.split())
    assert "Hatched" in said
    slack = content["trained"]["lemma_3_1"]["slack"]
    slack["value"] = [[value - 10 for value in row] for row in slack["value"]]
    content["trained"]["lemma_3_1"]["right_side"]["value"] = [[0.0] * 10] * 10
    draw_figures(content, [], tmp_path)
    said = texts_of(tmp_path / "theorem_1.svg")
    assert "It is nowhere above 0." in " ".join(said.split())
    assert "Hatched" not in said


def test_class_names_are_drawn_as_they_stand(tmp_path: Path) -> None:
    content = analysis(6, 60)
    content["class_names"] = [r"$\frac{1}$", "a & <b>", "猫", "\x01\ttab", "\udcff", "a very long name of class 7"]
    content["projection"]["centers"] = None  # names stand in the legend
    kept = {key: content[key] for key in ("class_names", "projection", "trained")}
    assert {"class_centers", "projection"} <= names_of(draw_figures(kept, [], tmp_path))
    for name in ("class_centers", "projection"):
        said = texts_of(tmp_path / f"{name}.svg")
        assert "a & <b>" in said
        assert "a very … class 7" in said


def test_an_image_without_variance_is_drawn(tmp_path: Path) -> None:
    plane = {"method": "principal components", "explained": [0.0, 0.0], "points": [[0.0, 0.0]], "labels": [0]}
    content = {"projection": plane | {"centers": [[0.0, 0.0], [float("nan")] * 2]}, "class_names": ["cat", "dog"]}
    assert names_of(draw_figures(content, [], tmp_path)) == {"projection"}


@pytest.mark.parametrize("value", [0.0, 0.5, -0.5])
def test_a_matrix_of_one_value_is_drawn(tmp_path: Path, value: float) -> None:
    content = {"trained": {"class_centers": {"inner_products": {"value": [[value] * 2] * 2}}}}
    assert names_of(draw_figures(content, [], tmp_path)) == {"class_centers"}


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
    with ThreadPoolExecutor(4) as pool:
        for paths in pool.map(lambda i: draw_figures(content, [], tmp_path / str(i)), range(4)):
            assert names_of(paths) == {"certificate"}
    first, *others = [[path.read_bytes() for path in sorted((tmp_path / str(i)).iterdir())] for i in range(4)]
    assert all(other == first for other in others)
