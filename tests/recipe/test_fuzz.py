"""Recipes, sweeps and overrides with mistakes of every kind: each is a recipe, or a sentence."""

from __future__ import annotations

import random
import time
from pathlib import Path

from cssl_cli.errors import CsslError
from cssl_cli.recipe import list_recipes, load_recipe
from cssl_cli.sweep.sweep import load_sweep

NASTY = [
    *("", "~", "null", "true", "on", "no", "0", "-0", "-0.0", "1e3", "1e400", "-.inf", ".nan", "5e-324", "1.7e308"),
    *("0x" + "f" * 4000, "9" * 5000, "9" * 20, "0o17", "1_000", "1:30", "2001-01-01", "=", "<<", "..", "/", "a" * 300),
    *("'", '"', "[", "]", "{", "}", "[[", "]]", "{{", "[]", "{}", "[1, [2", "- ", "? ", ": ", ":", "#", " #", ",", "|"),
    *(
        ">",
        "%",
        "%YAML 1.1\n---\n",
        "---\n",
        "...\n",
        "&a ",
        "*a",
        "!!int ",
        "!!python/object:x ",
        "!x ",
        "! ",
        "@",
        "`",
    ),
    *('"\\UFFFFFFFF"', '"\\ud800"', '"\\udcff"', '"\\0"', '"\\e[31m"', "\x00", "\x07", "\x1b[2J", "\ufeff", "\u2028"),
    *("\x85", "\t", "\r", "\r\n", "\n", "\n  ", "\n\t", "é", "☃", "\U0001f600", "$HOME", "${NOPE}", "~/x", "~nobody/x"),
    *("name: ", "based_on: simclr-shapes\n", "base: ", "axes: ", "row: ", "seeds: 5\n", "data: {", "optim.lr: 3\n"),
    *("[" * 200, "{a: " * 60, "? " * 60, "- " * 60, "&a [*a]", "&a {b: *a}", "claims: [{}]\n", "reference: {}\n"),
]
KEYS = ["seed", "name", "data.root", "data.size", "optim.lr", "train.epochs", "augment.crop.scale", "method", "analyze"]
KEYS += ["analyze.classes", "analyze.epsilons", "probe.penalties", "encoder.width", "seeds", "claims", "parts.a", "x.y"]


def mutated(text: str, others: list[str], rng: random.Random) -> str:
    """A text with one to three changes: of characters, of lines, from the list above, or spliced with another text."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, kind = rng.randrange(len(text) + 1), rng.randrange(8)
        lines = text.splitlines(keepends=True) or [""]
        line = rng.randrange(len(lines))
        if kind == 0:
            text = text[:at] + text[at + rng.randint(1, 5) :]
        elif kind == 1:
            text = text[:at] + chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xD7FF)])) + text[at:]
        elif kind == 2:
            text = text[:at] + rng.choice(NASTY) + text[at:]
        elif kind == 3:  # in place of a value
            key, colon, _ = lines[line].partition(":")
            text = "".join([*lines[:line], f"{key}{colon} {rng.choice(NASTY)}\n", *lines[line + 1 :]])
        elif kind == 4:
            text = "".join([*lines[:line], *rng.sample(lines, min(2, len(lines))), *lines[line + rng.randint(0, 1) :]])
        elif kind == 5:
            other = rng.choice(others)
            text = text[:at] + other[rng.randrange(len(other)) :]
        elif kind == 6:
            text = "".join([*lines[:line], " " * rng.randint(1, 3), *lines[line:]])
        else:
            text = text.replace(rng.choice([":", ",", "\n", "{", "1", "e"]), rng.choice(NASTY), rng.randint(1, 3))
    return text


def fuzz(folder: Path, number: int, seed: int) -> dict[str, float]:
    """Try `number` mutated recipes, sweeps and overrides; counts what came of them, and the longest time."""
    rng = random.Random(seed)
    shipped = {listing.name: listing.path.read_text(encoding="utf-8") for listing in list_recipes()}
    bodies = ["".join(line for line in text.splitlines(True) if not line.startswith("#")) for text in shipped.values()]
    sweeps = [listing.name for listing in list_recipes() if listing.kind == "sweep"]
    recipes = [listing.name for listing in list_recipes() if listing.kind == "recipe"]
    counts: dict[str, float] = {"accepted": 0, "refused": 0, "longest": 0.0}
    path = folder / "fuzzed.yaml"
    for _ in range(number):
        kind = rng.choice(("file", "file", "override"))
        if kind == "file":
            name, overrides = str(path), []
            text = mutated(rng.choice(bodies), bodies, rng)
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        else:
            name = rng.choice(recipes + sweeps[:2])
            overrides = [
                mutated(f"{rng.choice(KEYS)}={rng.choice(NASTY)}", NASTY[1:], rng) for _ in range(rng.randint(1, 2))
            ]
            text = repr((name, overrides))
        started = time.process_time()
        for load in (load_recipe, load_sweep):
            told = ""
            try:
                load(name, overrides)
            except CsslError as error:
                told = str(error)
            except Exception as error:
                raise AssertionError(f"{type(error).__name__} of {text!r}") from error
            counts["refused" if told else "accepted"] += 1
            assert told.replace("\n", "").isprintable() or kind == "override", (text, told)
            assert len(told) < 20_000, text
        counts["longest"] = max(counts["longest"], time.process_time() - started)
    return counts


def test_what_is_not_right_is_told_in_a_sentence(tmp_path: Path) -> None:
    counts = fuzz(tmp_path, 150, seed=2)
    assert counts["accepted"] > 3
    assert counts["refused"] > 150


if __name__ == "__main__":  # python tests/recipe/test_fuzz.py NUMBER SEED
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        print(fuzz(Path(folder), int(sys.argv[1]), int(sys.argv[2])))
