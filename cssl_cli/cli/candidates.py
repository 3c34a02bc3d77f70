"""What may stand at a place of the command line: candidates with their meaning, from completion.json and from files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

Candidate = tuple[str, str]  # a value, and what it means or ""
Field = Mapping[str, Any]

FEATURES = (".npz", ".safetensors")
MEASURED = ("probe", "analyze")  # the blocks of a recipe that may be changed of a run
FEW = 60  # entries of a folder of which the state of a run is looked up
PATHS = ("FILE", "WEIGHTS", "DIR")
PRECISIONS = ("float32", "bfloat16", "tf32")
NAMED = {  # of options whose values are no table's
    "--precision": PRECISIONS,
    "--format": ("html", "md", "csv", "latex"),
    "--track": ("tensorboard", "wandb", "mlflow", "trackio"),
    "--to": ("tensorboard", "wandb", "mlflow", "trackio"),
}


def candidates(words: Sequence[str], word: str) -> Iterator[Candidate]:
    """What may stand in place of `word` after the `words` that follow `cssl`; the caller drops what does not fit."""
    table = json.loads(Path(__file__).with_name("completion.json").read_text(encoding="utf-8"))
    place = next((number for number, said in enumerate(words) if not said.startswith("-")), None)
    if place is None:
        if word.startswith("-"):
            return _options(table["options"], words)
        return iter([(name, command["help"]) for name, command in table["commands"].items()])
    command = table["commands"].get(words[place])
    if command is None:
        return iter(())
    return _Line(table, words[place], command, words[place + 1 :]).candidates(word)


def _options(options: Iterable[Field], given: Sequence[str]) -> Iterator[Candidate]:
    said = {word.partition("=")[0] for word in given}
    for option in options:
        if option["many"] or not said & set(option["names"]):
            yield from ((name, option["help"]) for name in option["names"] if name.startswith("--"))


class _Line:
    """The words of a command: its options' values apart from its arguments."""

    def __init__(self, table: Field, name: str, command: Field, words: Sequence[str]) -> None:
        self.table, self.name, self.command, self.words = table, name, command, words
        self.arguments: list[str] = []
        self.values: dict[str, str] = {}
        self.open: Field | None = None  # the option whose value comes next
        for said in words:
            name, equals, value = said.partition("=")
            option = self._option(name) if said.startswith("-") else None
            if self.open is not None:
                self.values[self.open["names"][0]] = said
                self.open = None
            elif option is None:
                if not said.startswith("-"):
                    self.arguments.append(said)
            elif equals:
                self.values[option["names"][0]] = value
            elif option["takes"] is not None:
                self.open = option

    def _option(self, name: str) -> Field | None:
        return next((option for option in self.command["options"] if name in option["names"]), None)

    def candidates(self, word: str) -> Iterator[Candidate]:
        if self.open is not None:
            return self._of_option(self.open, word)
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            option = self._option(name) if equals else None
            if option is not None:
                return ((f"{name}={found}", meaning) for found, meaning in self._of_option(option, value))
            return _options(self.command["options"], self.words)
        return self._of_argument(word)

    # ------------------------------------------------------------------ options
    def _of_option(self, option: Field, word: str) -> Iterator[Candidate]:
        name, takes = option["names"][0], option["takes"]
        known: Mapping[str, Callable[[], Iterable[Candidate]]] = {
            "--device": devices,
            "--section": lambda: self._listed("sections"),
            "--accuracy": lambda: self._listed("accuracies"),
            "--sort": lambda: (
                ("-" * word.startswith("-") + quantity, "") for quantity in (*self.table["quantities"],)
            ),
            "--only": self._rows,
            "--skip": self._rows,
            "--versus": lambda: (row for row in self._rows() if "*" not in row[0]),
            "--data": lambda: [*recipes("recipe"), *self._names("data")],
        }
        if name in known:
            return iter(known[name]())
        if name in NAMED:
            return iter((value, "") for value in NAMED[name])
        if any(kind in takes for kind in PATHS):
            return paths(word, () if "DIR" in takes else ("",))
        return iter(())

    def _listed(self, name: str) -> list[Candidate]:
        return [(value, "") for value in self.table[name]]

    def _names(self, block: str) -> list[Candidate]:
        return [
            (name, one["fields"]["name"]["help"])
            for one in self.table["fields"][block]["blocks"]
            for name in one["names"]
        ]

    def _rows(self) -> Iterator[Candidate]:
        from cssl_cli.cli.completed_recipes import rows

        return iter([(row, "") for row in rows(self.arguments[0])] if self.arguments else [])

    # ------------------------------------------------------------------ arguments
    def _of_argument(self, word: str) -> Iterator[Candidate]:
        specified = self.command["arguments"]
        place = len(self.arguments)
        if place < len(specified):
            shown = specified[place]["shown"]
        else:
            shown = specified[-1]["shown"] if specified and specified[-1]["many"] else ""
        kinds = set(re.findall(r"[A-Z]+", shown))
        if re.search(r"[~=]", word) is None or "/" in word:
            yield from self._named(kinds, word)
        if self.name == "recipes" and place > 0 and "--copy" in self.words:
            yield from paths(word)
        elif "KEY" in kinds and (place > 0 or "--data" in self.values):
            yield from self._overrides(word)
        choices = re.fullmatch(r"\[?([a-z]+(?:\|[a-z]+)+)\]?", shown)
        if choices:
            yield from ((choice, "") for choice in choices[1].split("|"))

    def _named(self, kinds: set[str], word: str) -> Iterator[Candidate]:
        """Runs, recipes, sweeps and files."""
        if "RUN" in kinds:
            yield from runs(word, self.values.get("--out", "runs"))
        if kinds & {"RECIPE", "SWEEP"}:
            for kind in ("recipe", "sweep"):
                if kind.upper() in kinds:
                    yield from recipes(kind)
        suffixes = [".yaml", ".yml"] * bool(kinds & {"RECIPE", "SWEEP"}) + [*FEATURES] * ("FEATURES" in kinds)
        suffixes += [""] * ("WEIGHTS" in kinds)
        if suffixes:
            yield from paths(word, suffixes, folders="RUN" not in kinds)

    # ------------------------------------------------------------------ overrides
    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The recipe that the overrides change, with those given so far; empty where it cannot be read."""
        from cssl_cli.cli.completed_recipes import document

        return document([*self._of_data(), *self.arguments])

    def _of_data(self) -> list[str]:
        """The recipe that --data names, where no argument names one."""
        first = self.command["arguments"][0]["shown"]
        return [self.values["--data"]] if first.startswith("KEY") and "--data" in self.values else []

    def _overrides(self, word: str) -> Iterator[Candidate]:
        of_run = bool(self.arguments) and os.path.isdir(os.path.expanduser(self.arguments[0]))  # noqa: PTH111, PTH112
        fields = {
            key: field
            for key, field in self.table["fields"].items()
            if not of_run or key in MEASURED or ("--data" in self.values and key == "data")
        }
        if self.name == "sweep":
            fields = {key: field for key, field in fields.items() if key not in ("name", "seed")}
            fields |= self.table["sweep_fields"]
        if word.startswith("~"):
            there = self.document
            return ((f"~{path}", meaning) for path, _, meaning in self._keys(fields, word[1:]) if _has(there, path))
        key, equals, value = word.partition("=")
        if equals:
            return ((f"{key}={found}", meaning) for found, meaning in self._values(fields, key, value))
        return ((f"{path}{'.' if below else '='}", meaning) for path, below, meaning in self._keys(fields, key))

    def _keys(self, fields: Mapping[str, Field], word: str) -> Iterator[tuple[str, bool, str]]:
        """The dotted keys one level below what is written of one: each, whether it has fields itself, its meaning."""
        above = word.split(".")[:-1]
        value: Any = self.document if above else {}
        for part in above:
            field = fields.get(part, {})
            value = value.get(part) if isinstance(value, Mapping) else None
            fields = _fields_of(field, value)
        for key, field in fields.items():
            now = value.get(key) if isinstance(value, Mapping) else None
            now = field.get("default") if now is None else now
            said = field["help"] or ""
            if above and now is not None and "blocks" not in field:
                said += f" [{_shown(now)}]"
            yield ".".join([*above, key]), "blocks" in field, said

    def _values(self, fields: Mapping[str, Field], key: str, word: str) -> Iterator[Candidate]:
        """The values of a field: all of them where they are few, and the one that it has."""
        *above, last = key.split(".")
        value: Any = self.document
        for part in above:
            value = value.get(part) if isinstance(value, Mapping) else None
            others = fields.get(part, {})
            fields = _fields_of(others, value if last != "name" else None)
        field, now = fields.get(last), value.get(last) if isinstance(value, Mapping) else None
        if field is None or "blocks" in field:
            return
        if last == "name" and above:
            for one in others["blocks"]:
                yield from ((name, one["fields"]["name"]["help"]) for name in one["names"])
            return
        if field.get("path"):
            yield from paths(word)
            return
        default = field.get("default")
        values = dict.fromkeys(field.get("values", ()), "")
        for meaning, item in (("default", default), ("now", now)):
            if item is not None:
                values[_shown(item)] = meaning
        yield from values.items()


def _has(document: Any, path: str) -> bool:
    """Whether the document gives the field of a dotted key, so that it can be taken out."""
    for key in path.split("."):
        document = document.get(key) if isinstance(document, Mapping) else None
    return document is not None


def _fields_of(field: Field, value: Any) -> dict[str, Field]:
    """The fields of a block: of the one that `value` names, or of all that it may be."""
    name = value.get("name") if isinstance(value, Mapping) else None
    blocks = field.get("blocks", [])
    chosen = [block for block in blocks if name in block["names"]] or blocks
    return {key: one for block in chosen for key, one in block["fields"].items()}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# ------------------------------------------------------------------------------------------------- machines and files
def devices() -> Iterator[Candidate]:
    """The devices, without asking a driver."""
    yield "cpu", ""
    number = len(_entries("/proc/driver/nvidia/gpus"))
    if number:
        yield from (("cuda" if place < 0 else f"cuda:{place}", "") for place in range(-1, number))


def recipes(kind: str) -> Iterator[Candidate]:
    """The recipes or sweeps that ship."""
    from cssl_cli.recipe.book import list_recipes

    return ((listing.name, listing.summary) for listing in list_recipes() if listing.kind == kind)


def paths(word: str, suffixes: Sequence[str] = ("",), *, folders: bool = True) -> Iterator[Candidate]:
    """The files of these suffixes that the word begins, and folders, each with a slash."""
    for path, entry in _below(word):
        if _is_folder(entry):
            yield from [(f"{path}/", "")] * folders
        elif entry.name.lower().endswith(tuple(suffixes)):
            yield path, ""


def runs(word: str, out: str) -> Iterator[Candidate]:
    """The runs that the word begins, each with its state, and other folders; without a slash, those in `out`, too."""
    inside = f"{out.rstrip('/')}/"
    if "/" not in word and inside.startswith(word):
        yield from _runs_below(inside)
        yield from (other for other in _runs_below(word) if other[0] != inside)
    else:
        yield from _runs_below(word)


def _runs_below(word: str) -> Iterator[Candidate]:
    for number, (path, entry) in enumerate(_below(word)):
        if os.path.isfile(os.path.join(entry.path, "recipe.yaml")):  # noqa: PTH113, PTH118
            yield path, _state(Path(entry.path)) if number < FEW else ""
        elif _is_folder(entry):
            yield f"{path}/", ""


def _state(run: Path) -> str:
    """Where a run stands by its own word; one that says it is running and holds no lock was killed."""
    from cssl_cli.host.files import read_bytes
    from cssl_cli.runs.lock import is_held

    try:
        state = str(json.loads(read_bytes(run / "status", largest=10_000))["state"])  # of a pipe, it does not wait
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return "killed" if state == "running" and not is_held(run / "lock") else state


def _below(word: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What there is whose path the word begins, by name: the path as it would be written, and the entry."""
    folder, slash, name = word.rpartition("/")
    for entry in _entries(os.path.expanduser(f"{folder}{slash}") or "."):  # noqa: PTH111
        if entry.name.startswith(name) and (not entry.name.startswith(".") or name.startswith(".")):
            yield f"{folder}{slash}{entry.name}", entry


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(islice(entries, 20_000), key=lambda entry: entry.name)
    except (OSError, ValueError):
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
