"""Damaged files at the functions that read them: the error for damage, "not there", or the value as it was written."""

from __future__ import annotations

import math
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError
from cssl_cli.host.progress import Silent

from .damages import damage_of
from .findings import Fault, Outcome, signature_of
from .material import shared

Reader = Callable[[Path], Any]


class _Telling(Silent):
    """What is said of a file that is used all the same was noticed."""

    def say(self, message: str) -> None:
        raise CsslError(message)


class Readers:
    """See the module."""

    name, cases, batch, limit, memory = "readers", 1_200, 100, 60.0, 6 * 2**30

    def prepare(self, folder: Path) -> None:
        found = shared(folder.parent)
        self.material, self.run_name, self.cache = found.folder, found.run, found.folder / "cached"
        self.files: dict[str, tuple[Path, Reader]] = {}
        self.sound: dict[str, Any] = {}

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        if not self.files:  # in the process of a batch: it computes with torch, so that no more may be forked
            self.files = self._readers()
        name = sorted(self.files)[number % len(self.files)]
        original, reader = self.files[name]
        if name not in self.sound:
            self.sound[name] = reader(original)
        copy = folder / original.parent.name
        shutil.copytree(original.parent, copy)
        data = original.read_bytes()
        kind, damaged = damage_of(data, chance, other=None, name=original.name)
        (copy / original.name).write_bytes(damaged)
        what, problem = self._trial(reader, copy / original.name, self.sound[name])
        files = {original.name: damaged}
        faults = [] if problem is None else [Fault(problem[0], f"{name}: {problem[1]}", f"{kind}: {problem[2]}", files)]
        return Outcome(Counter({what: 1}), faults)

    @staticmethod
    def _trial(reader: Reader, path: Path, sound: Any) -> tuple[str, tuple[str, str, str] | None]:
        import traceback

        try:
            value = reader(path)
        except CsslError as error:
            if path.name not in str(error) and str(path.parent) not in str(error):
                return "noticed", ("message", "the file is not named", str(error))
            return "noticed", None
        except Exception as error:
            return "fault", ("traceback", signature_of(error), traceback.format_exc())
        if value is None or value == {"state": "new"}:
            return "noticed", None
        if same(value, sound):
            return "harmless", None
        return "silent", ("silent", "read as if it were sound", str(value)[:500])

    def _readers(self) -> dict[str, tuple[Path, Reader]]:
        from cssl_cli.data import load_dataset
        from cssl_cli.recipe import load_recipe
        from cssl_cli.runs.finished import open_finished, trained_part
        from cssl_cli.runs.run_dir import RunDir

        run = self.material / "begun" / self.run_name
        recipe = load_recipe(str(self.material / "tiny.yaml"))
        of_photos = load_recipe(str(self.material / "photos.yaml"))

        def of_dir(read: Callable[[RunDir], Any]) -> Reader:
            return lambda path: read(RunDir(path.parent))

        def cached(path: Path) -> Any:
            found = load_dataset(of_photos.settings("data"), cache_dir=path.parent, progress=None)
            return [found.pretrain.images.clone(), found.mean, found.std, found.content_key]

        settings = {name: RunDir(run).read_json(name) for name in ("probe.json", "analysis.json")}

        def result(name: str) -> Reader:
            content = settings[name]
            assert content is not None
            return of_dir(lambda found: found.read_result(name, content["settings"]))

        (array,), (described,) = self.cache.glob("*.npy"), self.cache.glob("*.json")
        return {
            "checkpoint.pt": (run / "checkpoint.pt", of_dir(lambda found: found.load_checkpoint())),
            "encoder": (
                run / "encoder.safetensors",
                of_dir(lambda found: dict(trained_part(found, recipe, "encoder").state_dict())),
            ),
            "projector": (
                run / "projector.safetensors",
                of_dir(lambda found: dict(trained_part(found, recipe, "projector").state_dict())),
            ),
            "metrics.jsonl": (run / "metrics.jsonl", of_dir(lambda found: found.read_records("metrics.jsonl"))),
            "environment.json": (run / "environment.json", of_dir(lambda found: found.read_json("environment.json"))),
            "status": (run / "status", of_dir(lambda found: found.status())),
            "recipe.yaml": (run / "recipe.yaml", lambda path: open_finished(path.parent, _Telling())[1].model_dump()),
            "probe.json": (run / "probe.json", result("probe.json")),
            "analysis.json": (run / "analysis.json", result("analysis.json")),
            "cached array": (array, cached),
            "cached description": (described, cached),
        }


def same(one: Any, other: Any) -> bool:
    """Equality of trees of mappings, lists, tensors and plain values; NaN equals NaN."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and _bits(one) == _bits(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and bool(one == other)


def _bits(tensor: Any) -> bytes:
    return bytes(tensor.contiguous().numpy().tobytes())
