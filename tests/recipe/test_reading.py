"""What is no recipe's file, or hard to read as one: encodings, folders, pipes, broken YAML."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cssl_cli.recipe import load_recipe
from tests.support.recipe_files import GOOD, refusal


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n- b\n", "must be a mapping"),
        ("just text", "must be a mapping"),
        (b"name: \xff\xfe", "not a text file in UTF-8 (byte 6)\nRecipes and sweeps are text, in YAML."),
        (GOOD + "seed: 1\nseed: 2\n", "the key 'seed' is given twice"),
        (GOOD + "x: !!python/object:os.path {}\n", "the tag !!python/object:os.path is not allowed"),
        (GOOD + "x: [\n", "not valid YAML: line 10"),
        ("name: s\nbase: simclr-shapes\n", "is a sweep, not a recipe"),
        (GOOD + "based_on: 3\n", "based_on must be the name or the path of a recipe"),
        (GOOD + "based_on: simclr-cifar11\n", "Did you mean 'simclr-cifar10'?"),
        (GOOD + "based_on: nowhere.yaml\n", "its base nowhere.yaml does not exist"),
        (GOOD + "based_on: quickstart\n", "is a sweep, not a recipe"),
        (GOOD + "based_on: mine.yaml\n", "based_on goes in a circle"),
    ],
)
def test_file_that_is_no_recipe(write: Callable[..., str], content: str | bytes, message: str) -> None:
    error = refusal(write(content))
    assert message in str(error)
    assert "mine.yaml" in str(error)


def test_a_byte_order_mark_is_no_fault(write: Callable[..., str]) -> None:
    assert load_recipe(write(b"\xef\xbb\xbf" + GOOD.encode())).name == "mine"


def test_missing_file_and_unknown_name(tmp_path: Path) -> None:
    missing = refusal(str(tmp_path / "none.yaml"))
    assert "there is no such file" in missing.what
    assert "simclr-cifar10" in (missing.remedy or "")
    unknown = refusal("simclr-cifar")
    assert "unknown recipe 'simclr-cifar'" in unknown.what
    assert "Did you mean 'simclr-cifar10'?" in (unknown.remedy or "")
    assert "unknown recipe ''" in refusal("").what


def test_folder_and_path_through_a_file(write: Callable[..., str], tmp_path: Path) -> None:
    assert "is a folder" in refusal(str(tmp_path)).what
    assert "cannot be read" in refusal(write(GOOD) + "/inner.yaml").what
    assert "cannot be read" in refusal("a\0b.yaml").what


def test_unreadable_file(write: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(GOOD)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cssl_cli.recipe.files.read_bytes", refuse)
    error = refusal(path)
    assert "Permission denied" in error.what
    assert error.where == path


def test_a_file_that_would_take_long_to_parse_is_refused_unread(write: Callable[..., str]) -> None:
    assert "longer than 300 kB" in refusal(write("# " + "x" * 300_000)).what


def test_utf_16_is_called_by_its_name(write: Callable[..., str]) -> None:
    assert refusal(write(GOOD.encode("utf-16"))).what == "is in UTF-16; save it as UTF-8"


def test_a_pipe_without_a_writer_is_empty(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    assert refusal(str(pipe)).what == "the file is empty"


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_line_ends_and_a_byte_order_mark(write: Callable[..., str], end: str) -> None:
    assert load_recipe(write("\ufeff" + GOOD.replace("\n", end))).optim.lr == 0.1
