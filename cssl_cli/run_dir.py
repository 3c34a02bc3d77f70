"""The run directory: the only owner of a run's state on disk.

    recipe.yaml           the recipe as resolved: running it again gives this run
    environment.json      versions, device, precision, thread count, the content of the data
    metrics.jsonl         one record an epoch
    trace.jsonl           cheap terms through training, where the recipe asks for them
    knn.jsonl             k-NN accuracy through training, where the recipe asks for it
    checkpoint.pt         everything needed to go on exactly
    encoder.safetensors   the result
    projector.safetensors the projector that the method trained it with
    probe.json            accuracies
    analysis.json         theoretical terms
    NAME-DIGEST.json      either of them, measured before with other settings
    status                where the run stands; `finished` is written last

Every file appears by rename, whole or not at all. One process at a time holds the directory's lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cssl_cli.errors import InputError, InUseError
from cssl_cli.files import explained, remove_leftovers, replacing

if TYPE_CHECKING:
    import torch

RECIPE, ENVIRONMENT, CHECKPOINT = "recipe.yaml", "environment.json", "checkpoint.pt"
METRICS, TRACE, EPOCH_KNN = "metrics.jsonl", "trace.jsonl", "knn.jsonl"
RESULTS_FORMAT = 3  # of probe.json and analysis.json; raise it when a number in them begins to mean something else
ENCODER, PROJECTOR = "encoder.safetensors", "projector.safetensors"
PROBE, ANALYSIS, STATUS, LOCK = "probe.json", "analysis.json", "status", "lock"


class RunDir:
    """A run directory by its path. `at` names the place of a run, `create` makes it, `open` finds one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # ------------------------------------------------------------------ finding and making
    @classmethod
    def at(cls, parent: Path, *, name: str, fingerprint: str) -> RunDir:
        """The place of the run `name` with `fingerprint` under `parent`, whether it is there yet or not."""
        return cls(parent / f"{name}-{fingerprint}")

    def create(self, recipe_yaml: str) -> None:
        """Make the directory and its recipe, unless they are there; `InputError` if it cannot be made.

        `InUseError` when another process is making it. The recipe is written under the lock, as all files are: whoever
        holds it removes what was begun aside.
        """
        with explained(self.path, "Choose another folder with --out DIR."):
            self.path.mkdir(parents=True, exist_ok=True)
        if not self.file(RECIPE).exists():
            with self.locked():
                if not self.file(RECIPE).exists():
                    self.write_text(RECIPE, recipe_yaml)

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """The existing run directory at `path`; `InputError` when there is none."""
        if not path.is_dir():
            raise InputError("there is no such run directory", where=str(path), remedy=_list_runs(path.parent))
        run = cls(path)
        if not run.file(RECIPE).exists():
            raise InputError(f"not a run directory: it holds no {RECIPE}", where=str(path), remedy=_list_runs(path))
        return run

    def file(self, name: str) -> Path:
        return self.path / name

    def in_use(self) -> bool:
        """Whether a process holds the lock at this moment."""
        try:
            with self.file(LOCK).open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process; `InputError` when another process holds it. Freed by its death, too."""
        with explained(self.path, "The run directory must be writable."):
            handle = os.open(self.file(LOCK), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                _lock(handle)
            except BlockingIOError:
                holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                raise InUseError(
                    f"the run directory is in use by {holder}",
                    where=str(self.path),
                    remedy="Wait for it to end or stop it; the same command then goes on from its checkpoint.",
                ) from None
            except OSError as error:
                raise InputError(
                    f"the file system cannot lock files: {error.strerror or error}",
                    where=str(self.path),
                    remedy="Choose another folder with --out DIR, or mount this one with locks.",
                ) from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            remove_leftovers(self.path)
            yield
        finally:
            os.close(handle)

    # ------------------------------------------------------------------ whole files only
    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """A path to write to; what was written becomes the file `name` at the end, or nothing changes."""
        return replacing(
            self.file(name), "Free some space or make the folder writable; what was saved before is intact."
        )

    def write_text(self, name: str, text: str) -> None:
        with self.replacing(name) as partial:
            partial.write_text(text, encoding="utf-8")

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The mapping in a JSON file, None when it is not there; `InputError` when it is damaged."""
        try:
            content = json.loads(self.file(name).read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it holds no mapping")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, OSError) as error:
            raise InputError(
                f"cannot be read: {error}", where=str(self.file(name)), remedy="Delete the file; it is made again."
            ) from error
        return content

    def remove(self, *names: str) -> None:
        for name in names:
            self.file(name).unlink(missing_ok=True)

    # ------------------------------------------------------------------ what a run leaves behind
    def write_records(self, name: str, records: list[dict[str, Any]]) -> None:
        self.write_text(name, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))

    def read_records(self, name: str) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, trace.jsonl or knn.jsonl; none when there is no such file."""
        try:
            lines = self.file(name).read_text(encoding="utf-8").splitlines()
            records = [json.loads(line) for line in lines]
            if not all(isinstance(record, dict) and "step" in record for record in records):
                raise ValueError("a line is no record of an epoch")
        except FileNotFoundError:
            return []
        except ValueError as error:
            remedy = "Delete it: nothing else depends on it."
            raise InputError(f"cannot be read: {error}", where=str(self.file(name)), remedy=remedy) from error
        return records

    def write_status(self, state: str, **facts: Any) -> None:
        """`state` is one of running, interrupted, failed, finished."""
        self.write_json(STATUS, {"state": state, **facts})

    def status(self) -> dict[str, Any]:
        """Where the run stands; a status that cannot be read is none: the checkpoint then brings the run to its end."""
        try:
            return {"state": "new", **(self.read_json(STATUS) or {})}
        except InputError:
            return {"state": "new"}

    @property
    def finished(self) -> bool:
        return self.status()["state"] == "finished" and self.file(ENCODER).exists()

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        import torch

        written = io.BytesIO()  # torch tells of a full disk in words of its own
        torch.save(dict(state), written)
        with self.replacing(CHECKPOINT) as partial:
            partial.write_bytes(written.getbuffer())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, on the CPU; None when there is none; `InputError` when it cannot be read."""
        import pickle

        import torch

        path = self.file(CHECKPOINT)
        if not path.exists():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(
                f"the checkpoint is damaged and cannot be read ({reason})",
                where=str(path),
                remedy="Delete it, or add --restart, to train this run again from the start.",
            ) from error

    def save_weights(self, name: str, state: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Write the weights, with `facts` as JSON under the key "cssl" of the file's metadata."""
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        with self.replacing(name) as partial:
            partial.write_bytes(save(tensors, metadata={"cssl": json.dumps(facts)}))

    def load_weights(self, name: str) -> dict[str, torch.Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.file(name))
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"the weights cannot be read ({error})",
                where=str(self.file(name)),
                remedy="Add --restart to `cssl pretrain` to train this run again.",
            ) from error

    # ------------------------------------------------------------------ results
    def write_result(self, name: str, content: Mapping[str, Any]) -> None:
        """Write probe.json or analysis.json; one that is there of other settings is kept as NAME-DIGEST.json."""
        before = self._read_result_file(self.file(name))
        if before is not None and before["settings"] != _as_json(content["settings"]):
            self.file(name).replace(self._kept(name, before["settings"]))
        self.write_json(name, content)
        self._kept(name, content["settings"]).unlink(missing_ok=True)

    def read_result(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The finished run's result of these settings; one that is damaged, or of another format, is none."""
        if not self.finished:
            return None
        found = [self._read_result_file(path) for path in (self.file(name), self._kept(name, settings))]
        return next((content for content in found if content and content["settings"] == _as_json(settings)), None)

    def recall_result(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """`read_result`, and what was kept becomes the latest again: the file `name` is always what was last asked for.

        Takes the lock if anything is to be moved.
        """
        found = self.read_result(name, settings)
        latest = self._read_result_file(self.file(name))
        if found is not None and (latest is None or latest["settings"] != found["settings"]):
            with self.locked():
                self.write_result(name, found)
        return found

    def results(self, name: str) -> list[Path]:
        """The files of every result of this name, the latest first."""
        return [path for path in (self.file(name), *sorted(self.path.glob(_kept_name(name, "*")))) if path.exists()]

    def _kept(self, name: str, settings: Mapping[str, Any]) -> Path:
        return self.file(kept_name(name, settings))

    @staticmethod
    def _read_result_file(path: Path) -> dict[str, Any] | None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError):
            return None
        of_this_format = isinstance(content, dict) and content.get("format") == RESULTS_FORMAT and "settings" in content
        return content if of_this_format else None


def kept_name(name: str, settings: Mapping[str, Any]) -> str:
    """The file of a result of these settings, once it is not the latest any more."""
    return _kept_name(name, hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10])


def _kept_name(name: str, digest: str) -> str:
    return name.replace(".json", f"-{digest}.json")


def _as_json(settings: Any) -> Any:
    """Settings as they look after a round trip through JSON: tuples are lists."""
    if isinstance(settings, Mapping):
        return {key: _as_json(value) for key, value in settings.items()}
    if isinstance(settings, Sequence) and not isinstance(settings, str):
        return [_as_json(value) for value in settings]
    return settings


def _lock(handle: int) -> None:
    """Take the lock; a second time after a moment, since `in_use` holds it for one."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.1)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def find_runs(parent: Path) -> list[Path]:
    """The run directories directly under `parent`, by name."""
    return sorted(recipe.parent for recipe in parent.glob(f"*/{RECIPE}"))


def _list_runs(parent: Path) -> str:
    runs = find_runs(parent) if parent.is_dir() else []
    if not runs:
        return "Give the directory that `cssl pretrain` printed, for example runs/NAME-FINGERPRINT."
    newest = sorted(runs, key=lambda run: (run / RECIPE).stat().st_mtime, reverse=True)[:5]
    return "Runs there, newest first: " + ", ".join(str(run) for run in newest)
