"""Shell completion: what is offered where, in the form of each shell, from the table and the files at hand."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from typer._completion_shared import get_completion_script

from cssl_cli.cli import completion_table
from cssl_cli.cli.candidates import candidates
from cssl_cli.cli.completed_recipes import rows
from cssl_cli.cli.completion import BREAKS, LINE, complete, main, quoted, split, unquoted
from cssl_cli.recipe.book import shipped_names
from cssl_cli.sweep.file import read_sweep_file
from cssl_cli.sweep.members import Axis
from cssl_cli.sweep.sweep import _read_axes, load_sweep

BREAK = " \t\n\"'><=;|&(:"


def offered(line: str, shell: str = "fish") -> dict[str, str]:
    """What is offered at the end of the line, with its meaning."""
    return dict(one.partition("\t")[::2] for one in complete(shell, {LINE: line}))


def test_the_table_is_of_these_commands_and_fields() -> None:
    written = Path(completion_table.__file__).with_name("completion.json").read_text(encoding="utf-8")
    assert written == completion_table.document(), "python -m cssl_cli.cli.completion_table writes it again"


@pytest.mark.parametrize(
    ("sample", "variants"),
    [
        ("{optim.lr: {log_uniform: [1e-4, 1e-1]}}", ["s00", "s01", "s02"]),
        ("{augment.crop.scale: [{uniform: [0.1, 0.5]}, 1.0]}", ["s00", "s01", "s02"]),
        ("{train.batch_size: {choice: [64, 128, 256]}}", ["*"]),  # s03 may follow s00
    ],
)
def test_rows_of_draws(tmp_path: Path, sample: str, variants: list[str]) -> None:
    path = tmp_path / "random.yaml"
    axes = "{method: {simclr: {}, moco: {method: {name: moco}}}}"
    path.write_text(f"name: random\nbase: simclr-shapes\naxes: {axes}\nsample: {sample}\nnum: 3\n")
    found = [f"{method}-{draw}" for method in ("simclr", "moco") for draw in variants]
    assert list(rows(str(path))) == found
    members = load_sweep(str(path)).members
    assert all(any(fnmatch(member.row, row) for row in found) for member in members)
    if variants == ["*"]:
        assert offered(f"cssl sweep {path} --only ") == {"simclr-*": "", "moco-*": ""}
        assert offered(f"cssl sweep {path} --versus ") == {}  # takes one row


# ---------------------------------------------------------------------- what is offered
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cssl pr", ["pretrain", "probe"]),
        ("cssl -q swe", ["sweep"]),
        ("X=1 cssl swe", ["sweep"]),
        ("cssl --q", ["--quiet"]),
        ("cssl pretrain simclr-sh", ["simclr-shapes"]),
        ("cssl pretrain quick", []),  # a sweep
        ("cssl sweep quick", ["quickstart"]),
        ("cssl pretrain simclr-shapes --pr", ["--profile"]),
        ("cssl pretrain simclr-shapes --out x --profile --pr", []),  # is given already
        ("cssl analyze --section con", ["concentration"]),
        ("cssl analyze --accuracy=nea", ["--accuracy=nearest_center"]),
        ("cssl sweep quickstart --sort -nearest_center_t", ["-nearest_center_top_5"]),
        ("cssl sweep quickstart --versus simclr-cr", ["simclr-crop", "simclr-crop-color"]),
        ("cssl pretrain simclr-shapes opt", ["optim."]),
        ("cssl pretrain simclr-shapes optim.l", ["optim.lr="]),
        ("cssl pretrain simclr-shapes optim.lr=", ["optim.lr=0.005"]),  # the recipe's
        ("cssl pretrain simclr-shapes optim.lr=1 optim.lr=", ["optim.lr=1"]),
        ("cssl pretrain simclr-shapes train.precision=b", ["train.precision=bfloat16"]),
        ("cssl pretrain simclr-shapes analyze.controls=", ["analyze.controls=true", "analyze.controls=false"]),
        ("cssl pretrain simclr-shapes method.name=b", ["method.name=barlow_twins", "method.name=byol"]),
        ("cssl pretrain simclr-shapes method.q", []),
        ("cssl pretrain simclr-shapes method.name=moco method.q", ["method.queue="]),
        ("cssl pretrain simclr-shapes optim.name=lars optim.t", ["optim.trust_coefficient="]),
        ("cssl pretrain no-such-recipe optim.t", ["optim.trust_coefficient="]),
        ("cssl pretrain simclr-folder data.r", ["data.root="]),
        ("cssl pretrain simclr-shapes '~augment.b", ["~augment.blur"]),
        ("cssl pretrain simclr-shapes ~augment.s", []),  # is not there to be taken out
        ("cssl pretrain simclr-shapes augment.view_2.blur.si", ["augment.view_2.blur.sigma="]),
        ("cssl sweep quickstart seed", ["seeds="]),
        ("cssl sweep quickstart method.t", ["method.temperature="]),
        ("cssl probe --data svh", ["svhn"]),
        ("cssl doctor --data moco-shapes method.q", ["method.queue="]),
        ("cssl doctor method.q", []),
        ("cssl cache p", ["prune"]),
        ("cssl pretrain --precision x y z --", None),
        ("cssl no-such-command ", []),
        ("cssl pretrain simclr-shapes a.b.c.d", []),
        ("cssl pretrain simclr-shapes train.epochs.x", []),
        ("cssl sweep no-such-sweep --only ", []),
    ],
)
def test_what_is_offered(line: str, words: list[str] | None) -> None:
    found = [*offered(line)]
    assert words is None or sorted(found) == sorted(words)


def test_what_it_means_is_said() -> None:
    assert offered("cssl pretrain simclr-sh")["simclr-shapes"].startswith("SimCLR on drawn shapes")
    assert offered("cssl pretrain simclr-shapes optim.l") == {"optim.lr=": "learning rate at its highest [0.005]"}
    assert offered("cssl pretrain simclr-shapes encoder.name=sm")["encoder.name=small"].endswith("for CPUs")


@pytest.mark.parametrize("name", shipped_names("sweep"))
def test_rows_are_those_of_the_sweep(name: str) -> None:
    axes: dict[str, Axis] = _read_axes(read_sweep_file(name), ())
    found = list(rows(name))
    variants = [list(axis) for axis in axes.values()]
    assert found[0] == "-".join(one[0] for one in variants)
    assert found[-1] == "-".join(one[-1] for one in variants)


def test_rows_of_changed_axes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "{name: a, base: simclr-shapes, axes: {x: {p: {}, q: {}}, optim.lr: [0.1, 1e-3], gone: {r: {}}}}"
    )
    (tmp_path / "b.yaml").write_text("{name: b, based_on: ./a.yaml, axes: {x: {p: null, s: {}}, gone: null}}")
    path = str(tmp_path / "b.yaml")
    variants = [list(axis) for axis in _read_axes(read_sweep_file(path), ()).values()]
    assert list(rows(path)) == ["-".join((a, b)) for a in variants[0] for b in variants[1]]


# ---------------------------------------------------------------------- files and runs
@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, state in {"one-1": "finished", "two-2": "running", "three-3": "running", "odd-4": None}.items():
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        shutil.copyfile(Path("/dev/null"), run / "recipe.yaml")
        (run / "status").write_text("}{" if state is None else json.dumps({"state": state}))
    (tmp_path / "runs" / "two-2" / "lock").touch()
    (tmp_path / "runs" / "pipe-5").mkdir()
    (tmp_path / "runs" / "pipe-5" / "recipe.yaml").touch()
    os.mkfifo(tmp_path / "runs" / "pipe-5" / "status")
    (tmp_path / "runs" / "a sweep").mkdir()
    (tmp_path / "mine.yaml").write_text("{name: mine, based_on: moco-shapes, optim: {lr: 0.25}}")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "f.npz").touch()
    return tmp_path


def test_runs_are_offered_with_their_state(folder: Path) -> None:
    with (folder / "runs" / "two-2" / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = offered("cssl probe ")
    states = {
        "runs/one-1": "finished",
        "runs/two-2": "running",
        "runs/three-3": "killed",
        "runs/odd-4": "",
        "runs/pipe-5": "",
    }
    assert found == {**states, "runs/a sweep/": "", "f.npz": ""}
    assert offered("cssl probe runs/o") == {"runs/odd-4": "", "runs/one-1": "finished"}
    assert offered("cssl pretrain simclr-shapes --out r") == {"runs/": ""}


def test_files_are_offered_where_they_fit(folder: Path) -> None:
    assert offered("cssl pretrain m")["mine.yaml"] == ""
    assert "notes.txt" not in offered("cssl pretrain ")
    assert offered("cssl pretrain mine.yaml optim.lr=") == {"optim.lr=0.25": "now"}
    assert "method.queue=" in offered("cssl pretrain mine.yaml method.")
    assert offered("cssl import simclr-shapes n") == {"notes.txt": "", "name=": offered("cssl import x na")["name="]}
    assert "data.root=runs/" in offered("cssl pretrain simclr-folder data.root=")
    (folder / "runs" / "one-1" / "recipe.yaml").write_text("{name: a, based_on: moco-shapes}")
    assert list(offered("cssl probe runs/one-1 ")) == ["probe.", "analyze.", *offered("cssl probe x/")]


# ---------------------------------------------------------------------- shells
HOSTILE = [
    "a b",
    "a:b",
    "a=b",
    "it's",
    'say "x"',
    "$HOME",
    "`id`",
    "*",
    "a\\b",
    "~",
    "#",
    "é",
    "new\nline",
    "\x1b[31m",
    "-",
]


def test_hostile_names_come_back_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in HOSTILE:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "recipe.yaml").touch()
    shown = {f"runs/{name}" for name in HOSTILE if name.isprintable()}
    assert set(offered("cssl probe runs/")) == shown
    for typed in ("runs/", "'runs/", '"runs/'):
        lines = complete("bash", {LINE: f"cssl probe {typed}", BREAKS: BREAK})
        quote = typed[0].strip("r")
        command = "printf '%s\\n' " + " ".join(f"{quote}{line}{quote}" for line in lines)
        read = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert set(read.stdout.splitlines()) == shown
        assert not any("\n" in line for line in lines)
    for typed, rest in {
        "runs/a:": ["b"],
        "runs/a\\ ": ["runs/a\\ b"],
        "runs/a\\:": ["runs/a:b"],
        "runs/a=": ["b"],
    }.items():
        assert complete("bash", {LINE: f"cssl probe {typed}", BREAKS: BREAK}) == rest


def test_words_are_split_as_shells_do() -> None:
    for line in ("cssl a 'b c' d", 'x "a b" c\\ d', "a 'it'\\''s' b", 'a "q\\"r" s', "a  b\tc"):
        words, word, quote, _ = split(line)
        assert [*words, word] == shlex.split(line)
        assert quote == ""
    assert split("cssl 'a b")[:3] == (["cssl"], "a b", "'")
    assert split("cssl a ")[:2] == (["cssl", "a"], "")
    for value in HOSTILE:
        assert unquoted(quoted(value, "", first=True)) == value


def test_the_scripts_of_typer_are_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    line = {"COMP_WORDS": "cssl\npretrain\nsimclr-shapes\noptim.schedule\n=\ncos", "COMP_CWORD": "5"}
    assert complete("bash", {**line, BREAKS: BREAK}) == ["cosine"]
    assert complete("bash", {"COMP_WORDS": "cssl swe", "COMP_CWORD": "1"}) == ["sweep"]
    for shell in ("bash", "zsh", "fish"):
        script = get_completion_script(prog_name="cssl", complete_var="_CSSL_COMPLETE", shell=shell)
        assert LINE in script, "cssl --show-completion gives our script"


def test_bash_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("source_bash") == 0
    script = f"cssl() {{ {shlex.quote(sys.executable)} -m cssl_cli; }}\n{capsys.readouterr().out}\ncd {tmp_path}\n"
    script += 'COMP_LINE="cssl pretrain simclr-shapes optim.l x"; COMP_POINT=35\n'
    script += '_cssl_completion cssl; printf "<%s>" "${COMPREPLY[@]}"; complete -p cssl'
    ended = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "<optim.lr=>complete -o nosort -F _cssl_completion cssl\n"


def test_what_is_not_known_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    for instruction in ("complete_tcsh", "x", "delete_bash"):
        assert main(instruction) == 1
    assert list(candidates([], "")) != []
    assert capsys.readouterr() == ("", "")


def test_a_tab_loads_nothing_slow() -> None:
    lines = ["cssl pretrain simclr-folder method.", "cssl sweep quickstart --only s", "cssl analyze runs/"]
    code = "from cssl_cli.cli.completion import complete\nimport sys\n"
    code += f"for line in {lines}: complete('zsh', {{{LINE!r}: line}})\n"
    code += "print({'torch', 'numpy', 'pydantic', 'typer', 'rich'} & sys.modules.keys())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
