"""The contact sheet: what is drawn where, and that no broken file is left behind."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from cssl_cli.errors import RunError
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.runs import contact_sheet as sheets
from cssl_cli.runs.contact_sheet import contact_sheet, draw_views
from tests.support.commands import TINY_RECIPE


def blank(num: int, num_views: int, side: int = 32) -> torch.Tensor:
    """Originals and `num_views` views of each."""
    return torch.zeros((num, 1 + num_views, 3, side, side))


def read(path: Path) -> np.ndarray:
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        return np.asarray(sheet.convert("RGB"))


def boxes_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the only solid rectangle of `colour`."""
    rows, columns = np.nonzero((pixels == colour).all(axis=2))
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert len(rows) == (right - left) * (bottom - top)
    return int(left), int(top), int(right), int(bottom)


@pytest.mark.parametrize(("side", "shown"), [(32, 96), (40, 120), (224, 224)])
def test_each_original_and_view_has_its_place(tmp_path: Path, side: int, shown: int) -> None:
    views = blank(2, 3, side)
    colours = {}
    for row in range(2):
        for column in range(4):
            colour = (100 + 10 * row, 50 + 10 * column, 20)
            colours[row, column] = colour
            views[row, column] = torch.tensor(colour)[:, None, None] / 255
    contact_sheet(views, tmp_path / "sheet.png", class_names=["cat", "dog"], title="some views")
    pixels = read(tmp_path / "sheet.png")
    boxes = {place: boxes_of(pixels, colour) for place, colour in colours.items()}
    assert {(right - left, bottom - top) for left, top, right, bottom in boxes.values()} == {(shown, shown)}
    for row, column in colours:
        assert boxes[row, column][0] == boxes[0, column][0]
        assert boxes[row, column][1] == boxes[row, 0][1]
    assert [boxes[0, column][0] for column in range(4)] == sorted({boxes[0, column][0] for column in range(4)})
    assert boxes[0, 0][3] < boxes[1, 0][1]


def test_pixels_are_enlarged_without_smoothing(tmp_path: Path) -> None:
    views = blank(1, 1)
    views[0, 1, :, 5, 7] = torch.tensor([1.0, 0.0, 0.0])
    contact_sheet(views, tmp_path / "sheet.png", class_names=None, title="")
    left, top, right, bottom = boxes_of(read(tmp_path / "sheet.png"), (255, 0, 0))
    assert (right - left, bottom - top) == (3, 3)


@pytest.mark.parametrize(("channels", "colour"), [(1, (51, 51, 51)), (2, (51, 51, 51)), (5, (51, 102, 153))])
def test_other_numbers_of_channels_are_drawn_gray_or_by_the_first_three(
    tmp_path: Path, channels: int, colour: tuple[int, int, int]
) -> None:
    views = torch.ones(1, 2, channels, 32, 32)
    views[0, 1] = (torch.arange(channels) + 1).view(-1, 1, 1) / 5
    contact_sheet(views, tmp_path / "sheet.png", class_names=None, title="")
    alike = (read(tmp_path / "sheet.png") == colour).all(axis=2)
    assert alike.sum() >= 96**2  # letters have all grays


def test_captions_are_drawn_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, xy: tuple[int, int], text: str, *rest: object, **options: object) -> None:
        drawn.append(text)
        draw(self, xy, text, *rest, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    contact_sheet(blank(2, 2), tmp_path / "sheet.png", class_names=["cat", "a long name of a class"], title="a title")
    assert drawn == ["a title", "original", "view 1", "view 2", "cat", "a long name of a class"]


def test_letters_beyond_ascii_are_drawn_as_such(tmp_path: Path) -> None:
    """Each as itself: a letter that the font lacks would be the same box as another one."""
    sheets_of = {}
    for name in ("é", "ß", "Ж", "ψ"):
        contact_sheet(blank(1, 1), tmp_path / "sheet.png", class_names=[name], title="")
        sheets_of[name] = read(tmp_path / "sheet.png")[:, :80].tobytes()
    assert len(set(sheets_of.values())) == len(sheets_of)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sheet.png"
    path.write_bytes(b"the old sheet")

    def fail_halfway(_: Image.Image, file: Path, **__: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Image.Image, "save", fail_halfway)
    with pytest.raises(RunError, match="no space left"):
        contact_sheet(blank(1, 1), path, class_names=None, title="")
    assert path.read_bytes() == b"the old sheet"
    assert list(tmp_path.iterdir()) == [path]


def test_views_of_two_kinds_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, object] = {}
    monkeypatch.setattr(sheets, "contact_sheet", lambda views, _, **said: drawn.update(views=views, **said))
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    kinds = ["augment.gray=null", "augment.view_2={gray: {p: 1}}", "data.num_train=10", "data.num_test=10"]
    recipe = load_recipe(str(tmp_path / "tiny.yaml"), kinds)
    draw_views(recipe, tmp_path / "views.png", reporter=Silent(), device_name="cpu", num_views=3)
    views = drawn["views"]
    assert isinstance(views, torch.Tensor)
    gray = (views[:, 1:] == views[:, 1:, :1]).flatten(2).all(dim=2)
    assert gray.tolist() == [[False, False, True]] * len(views)
    assert drawn["title"] == "tiny (from view 3 on: second views of pairs)"
