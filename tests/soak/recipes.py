"""Mutated recipes, sweeps and overrides: a recipe comes out, or an error for the user; within a bounded time.

What comes out is held against itself, too: written down and read again it is the same recipe, and a path given on the
command line is the path that is used.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError

from .findings import Fault, Outcome, signature_of
from .mutate import ODD_VALUES, change_tree, delete_span, flip_bit, random_bytes, repeat_span, truncate

CPU_SECONDS = 5.0
SHRINKING = 80  # attempts
TOKENS = (
    "&a ",
    "*a",
    "!!python/object:os.system x",
    "!!binary aGk=",
    "<<: {a: 1}",
    "? ",
    "- ",
    "---\n",
    "...\n",
    "%YAML 9.9\n",
    '"\\UFFFFFFFF"',
    '"\\uD800"',
    "'\\ud800': 1\n",
    "0x" + "f" * 4000,
    "9" * 5000,
    "1e400",
    "-.inf",
    ".nan",
    "0o777",
    "~",
    "null",
    "{" * 200,
    "[" * 2000,
    "a: " * 500,
    "\t",
    "\0",
    "\x1b[31m",
    "\x85",
    "\u2028",
    "\ufeff",
    "é",
    "e\u0301",
    "#",
    " #x",
    ": ",
    ",",
    "'",
    '"',
    "|\n",
    ">-\n ",
    "2001-01-01",
    "1:30",
    "yes",
    "train.epochs: 3\n",
    "axes: {}\n",
    "base: simclr-shapes\n",
    "based_on: simclr-shapes\n",
    "seeds: 1000000000\n",
    "seeds: [0, 0]\n",
    "name: ../x\n",
)
KEYS = (
    "data.root",
    "data.size",
    "data.name",
    "data.num_train",
    "data",
    "train.epochs",
    "train.steps",
    "train.batch_size",
    "optim.lr",
    "optim.name",
    "optim",
    "method",
    "method.temperature",
    "method.projector",
    "method.lambda",
    "method.queue",
    "encoder.width",
    "augment.crop.scale",
    "augment.blur",
    "augment",
    "analyze.epsilons",
    "analyze.deltas",
    "analyze.num_views",
    "analyze.bootstrap",
    "analyze.classes",
    "probe.penalties",
    "probe.knn_k",
    "seed",
    "seeds",
    "name",
    "axes",
    "base",
    "x.y",
    "augment.jitter.strength",
    "train.precision",
    "train.compile",
    "",
    ".",
    "a..b",
    "é",
)
VALUES = (
    "1",
    "0",
    "-1",
    "1e3",
    "5e-4",
    "0.1",
    "true",
    "null",
    "~",
    "[1, 2]",
    "[0.1, 0.2",
    "{a: 1}",
    "{name: folder, root: x}",
    "{name: lars, lr: 1}",
    "folder",
    "simclr",
    "1e12",
    "1e308",
    "5e-324",
    "[5e-324, 1.7e308]",
    "4096",
    "0x1F",
    "''",
    '""',
    "a b",
    "a # b",
    "'a'b",
    "&x 1",
    "*x",
    "!!int 3",
    "- 1",
    "a: b",
    "\x1b[2J",
    "a\nb",
    "\udcff",
    "%",
    "@",
    "`",
    "[]",
    "{}",
)
PATHS = (
    "/x/set #2",
    "/x/a: b",
    "/x/[old]",
    "/x/{a}",
    "~/photos",
    "/x/it's",
    '/x/"q"',
    "/x/ü",
    "/x/u\u0308",
    "a#b",
    "./a b",
    "#1",
    "/x/100%",
    "/x/&y",
    "*",
    "!x",
    "/x/a,b",
    "/x/- y",
    "?x",
    "|",
    "@scratch",
    "/x/\udce9",
    "/x/a ",
    "x:smile:y",
)


@dataclass(frozen=True)
class Input:
    sweep: bool
    text: bytes
    overrides: tuple[str, ...] = ()
    by_command: bool = False


class Recipes:
    """See the module."""

    name, cases, batch, limit, memory = "recipes", 10_500, 200, 60.0, 3 * 2**30

    def prepare(self, folder: Path) -> None:
        from cssl_cli.recipe.files import shipped_names, shipped_path

        self.recipes, self.sweeps = [], []
        for kind, texts in (("recipe", self.recipes), ("sweep", self.sweeps)):
            for name in shipped_names(kind):
                path = shipped_path(name)
                assert path is not None
                texts.append(path.read_bytes())
        self.told: set[str] = set()

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        given = self._draw(chance)
        what, fault = attempt(given, folder)
        if fault is None:
            return Outcome(counts=_count(given, what))
        if fault.signature not in self.told:
            self.told.add(fault.signature)
            given = shrink(given, lambda smaller: _same(fault, attempt(smaller, folder)[1]))
        files = {("sweep.yaml" if given.sweep else "recipe.yaml"): given.text}
        files["overrides.txt"] = "\n".join(given.overrides).encode(errors="surrogateescape")
        return Outcome(_count(given, "fault"), [replace(fault, files=files)])

    def _draw(self, chance: random.Random) -> Input:
        sweep = chance.random() < 0.35
        text = chance.choice(self.sweeps if sweep else self.recipes)
        overrides: tuple[str, ...] = ()
        kind = chance.choices(("text", "tree", "overrides"), (4, 4, 3))[0]
        if kind == "text":
            for _ in range(chance.choice([1, 1, 2, 4])):
                text = _mutate_text(text, chance)
        elif kind == "tree":
            text = _mutate_tree(text, chance)
        if kind == "overrides" or chance.random() < 0.1:
            overrides = tuple(_override(chance) for _ in range(chance.choice([1, 1, 2, 4])))
        return Input(sweep, text, overrides, by_command=chance.random() < 0.08)


def _count(given: Input, what: str) -> Any:
    from collections import Counter

    return Counter({f"{'sweep' if given.sweep else 'recipe'} {what}": 1})


def _mutate_text(text: bytes, chance: random.Random) -> bytes:
    how = chance.randrange(4)
    if how == 0:
        return chance.choice((flip_bit, delete_span, repeat_span, random_bytes, truncate))(text, chance)
    token = chance.choice(TOKENS).encode(errors="surrogatepass")
    lines = text.split(b"\n")
    row = chance.randrange(len(lines))
    if how == 1 and b":" in lines[row]:  # as a value
        lines[row] = lines[row].partition(b":")[0] + b": " + token
    elif how == 2:
        lines.insert(row, token.rstrip(b"\n"))
    else:
        column = chance.randrange(len(lines[row]) + 1)
        lines[row] = lines[row][:column] + token + lines[row][column:]
    return b"\n".join(lines)


def _mutate_tree(text: bytes, chance: random.Random) -> bytes:
    import yaml

    from cssl_cli.recipe.yaml_text import dump, parse

    tree = parse(text.decode(), where="shipped").value
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        tree = change_tree(tree, chance)
    try:
        return dump(tree).encode(errors="surrogatepass")
    except yaml.YAMLError:  # a value that YAML does not have
        return text


def _override(chance: random.Random) -> str:
    if chance.random() < 0.3:
        return f"data.root={chance.choice(PATHS)}"
    if chance.random() < 0.1:
        return f"~{chance.choice(KEYS)}"
    value = chance.choice(VALUES) if chance.random() < 0.8 else str(chance.choice(ODD_VALUES))
    return f"{chance.choice(KEYS)}={value}"


# ------------------------------------------------------------------------------------------------------------ the trial
def attempt(given: Input, folder: Path) -> tuple[str, Fault | None]:
    """What comes of an input, in a word; and what is wrong with that."""
    path = folder / ("sweep.yaml" if given.sweep else "recipe.yaml")
    path.write_bytes(given.text)
    begun = time.process_time()
    try:
        what, problem = _by_command(given, path) if given.by_command else _directly(given, path)
    except CsslError:
        what, problem = "refused", None
    except (Exception, SystemExit) as error:
        import traceback

        return "fault", Fault("traceback", signature_of(error), traceback.format_exc())
    seconds = time.process_time() - begun
    if problem is None and seconds > CPU_SECONDS:
        problem = Fault("time", "a recipe takes long to read", f"{seconds:.1f} s")
    return what, problem


def _directly(given: Input, path: Path) -> tuple[str, Fault | None]:
    if given.sweep:
        from cssl_cli.report.compare.named_quantities import NAMES
        from cssl_cli.sweep.sweep import load_sweep

        sweep = load_sweep(str(path), list(given.overrides), quantities=NAMES)
        for member in sweep.members[:3]:
            assert member.fingerprint
        return "accepted", None
    from cssl_cli.recipe import load_recipe

    recipe = load_recipe(str(path), list(given.overrides))
    again = path.with_name("again.yaml")
    again.write_text(recipe.to_yaml(), encoding="utf-8", errors="surrogateescape")
    read_again = load_recipe(str(again))
    if read_again != recipe or read_again.fingerprint != recipe.fingerprint:
        return "fault", Fault("silent", "written down and read again it is another recipe", recipe.to_yaml())
    return "accepted", _root_as_given(given, recipe)


def _root_as_given(given: Input, recipe: Any) -> Fault | None:
    """The last `data.root=` of the command line is the folder that is used, character by character."""
    values = [text.partition("=")[2] for text in given.overrides if text.startswith("data.root=")]
    blocks = [text for text in given.overrides if text.split("=")[0] in ("data", "data.name", "~data", "~data.root")]
    root = getattr(recipe.data, "root", None)
    if not values or blocks or root is None:
        return None
    value = values[-1]
    if value[:1] in "'\"" and value[-1:] == value[:1]:
        value = value[1:-1]
    meant = {str(Path(os.path.expandvars(text)).expanduser().resolve()) for text in (value, value.strip())}
    if root in meant:
        return None
    return Fault("silent", "a folder other than the one given is used", f"given {value!r}, used {root!r}")


def _by_command(given: Input, path: Path) -> tuple[str, Fault | None]:
    from cssl_cli.cli.app import app

    words = ["sweep" if given.sweep else "pretrain", str(path), "--dry-run", *given.overrides]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(words, prog_name="cssl")
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    text = out.getvalue() + err.getvalue()
    raw = sorted(
        {character for character in text if (character < " " and character not in "\n\t\r") or character == "\x7f"}
    )
    if raw:
        return "fault", Fault("control characters", "a message holds raw control characters", repr(text[:2000]))
    if code not in (0, 2) or "Traceback" in text:
        return "fault", Fault("exit code", f"a dry run ends with {code}", text[:2000])
    return ("refused" if code else "accepted"), None


def _same(fault: Fault, other: Fault | None) -> bool:
    return other is not None and (other.kind, other.signature) == (fault.kind, fault.signature)


def shrink(given: Input, still_wrong: Callable[[Input], bool]) -> Input:
    """A smaller input that is wrong in the same way: overrides and runs of lines are taken out while it stays so."""
    attempts = 0

    def accepted(smaller: Input) -> bool:
        nonlocal attempts
        attempts += 1
        return attempts <= SHRINKING and still_wrong(smaller)

    for override in given.overrides:
        smaller = replace(given, overrides=tuple(text for text in given.overrides if text != override))
        if accepted(smaller):
            given = smaller
    length = max(1, given.text.count(b"\n") // 2)
    while length:
        lines = given.text.split(b"\n")
        start = 0
        while start < len(lines):
            fewer = lines[:start] + lines[start + length :]
            smaller = replace(given, text=b"\n".join(fewer))
            if accepted(smaller):
                given, lines = smaller, fewer
            else:
                start += length
        length //= 2
    return given
