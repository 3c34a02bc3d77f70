"""The run directory: the only owner of a run's state on disk.

    recipe.yaml           the resolved recipe: running it again gives this run
    environment.json      versions, device, precision, thread count, the content of the data
    metrics.jsonl         one record per epoch
    trace.jsonl           cheap terms through training, if the recipe asks for them
    knn.jsonl             k-NN accuracy through training, if the recipe asks for it
    checkpoint.pt         everything needed to resume exactly
    encoder.safetensors   the result
    projector.safetensors the projector that the method trained with it
    probe.json            accuracies
    analysis.json         theoretical terms
    NAME-DIGEST.json      either of them, measured earlier with other settings
    transfer/             accuracies on other sets of images
    status                where the run stands; `finished` is written last

Every file appears by rename, whole or not at all, and contains its own checksum (checksums.py), which is verified on
every read. One process at a time holds the directory's lock.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cssl_cli.errors import DamagedError, InputError, InUseError, ReadOnlyError, RunError
from cssl_cli.host import checksums
from cssl_cli.host.files import explained, is_folder, open_to_read, remove_leftovers
from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.runs.lock import holding, is_held
from cssl_cli.runs.stored import Checkpoint, Environment, Epoch, Probe, Record, Result, Status, require
from cssl_cli.runs.stored_analysis import require_analysis
from cssl_cli.runs.weights_file import WEIGHTS_DIGEST, facts_in, packed

if TYPE_CHECKING:
    import torch

RECIPE, ENVIRONMENT, CHECKPOINT = "recipe.yaml", "environment.json", "checkpoint.pt"
METRICS, TRACE, EPOCH_KNN = "metrics.jsonl", "trace.jsonl", "knn.jsonl"
RESULTS_FORMAT = 4  # of probe.json and analysis.json; raise it when the meaning of a number in them changes
ENCODER, PROJECTOR = "encoder.safetensors", "projector.safetensors"
PROBE, ANALYSIS, STATUS, LOCK = "probe.json", "analysis.json", "status", "lock"
FIGURES, TRANSFER = "figures", "transfer"

_RECIPE_SEAL = f"# {checksums.FIELD}: {checksums.BLANK}\n"
_WEIGHTS_AGAIN = (
    f"Delete {ENCODER} and {PROJECTOR}; `cssl pretrain` with the run's recipe writes both again from {CHECKPOINT}."
)
_REMEDIES = {
    STATUS: "Delete it; `cssl pretrain` with the run's recipe brings the run to its end from its checkpoint.",
    ENVIRONMENT: "Restore it from a copy, or delete it: then the run's images can no longer be checked.",
    CHECKPOINT: "Delete it, or add --restart, to train this run again from the start.",
    ENCODER: _WEIGHTS_AGAIN,
    PROJECTOR: _WEIGHTS_AGAIN,
    PROBE: "Delete it; `cssl probe` measures again.",
    ANALYSIS: "Delete it; `cssl analyze` measures again.",
    **dict.fromkeys((METRICS, TRACE, EPOCH_KNN), "Delete it: nothing else depends on it."),
}


class RunDir(SealedFolder):
    """A run directory by its path. `at` gives the path of a run, `create` makes it, `open` finds it."""

    # ------------------------------------------------------------------ finding and making
    @classmethod
    def at(cls, parent: Path, *, name: str, fingerprint: str) -> RunDir:
        """The directory of the run `name` with `fingerprint` under `parent`, whether or not it exists."""
        return cls(parent / f"{name}-{fingerprint}")

    def create(self, recipe_yaml: str) -> None:
        """Make the directory and write its recipe, unless they exist; `InputError` if it cannot be made.

        `InUseError` if another process is making it. The recipe is written under the lock, like every file: the lock's
        holder removes unfinished temporary files.
        """
        with explained(self.path, "Choose another folder with --out DIR."):
            self.path.mkdir(parents=True, exist_ok=True)
        if not self.file(RECIPE).exists():
            with self.locked():
                if not self.file(RECIPE).exists():
                    self.write_recipe(recipe_yaml)

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """The existing run directory at `path`; `InputError` if there is none."""
        if not is_folder(path):
            raise InputError("there is no such run directory", where=str(path), remedy=_list_runs(path.parent))
        run = cls(path)
        if not os.access(path, os.X_OK):
            raise InputError(
                "cannot be read: Permission denied", where=str(path), remedy="Make it readable, or copy it."
            )
        if not run.file(RECIPE).exists():
            raise InputError(f"not a run directory: it holds no {RECIPE}", where=str(path), remedy=_list_runs(path))
        return run

    def remedy(self, name: str) -> str:
        result = next((known for known in (PROBE, ANALYSIS) if name.startswith(known.replace(".json", "-"))), name)
        return _REMEDIES.get(result, super().remedy(name))

    def in_use(self) -> bool:
        """Whether a process holds the lock now."""
        return is_held(self.file(LOCK))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process, and remove unfinished files of killed processes.

        `InUseError` if another process holds it, `ReadOnlyError` if it cannot be written to.
        """
        with holding(self.file(LOCK)):
            for folder in (self.path, self.file(FIGURES), self.file(TRANSFER)):
                remove_leftovers(folder)
            yield

    def is_writable(self) -> bool:
        """Whether the directory can be locked and written to; `InUseError` if another process holds it."""
        try:
            with self.locked():
                return True
        except ReadOnlyError:
            return False

    # ------------------------------------------------------------------ recipe and environment
    def write_recipe(self, recipe_yaml: str) -> None:
        self.write_bytes(RECIPE, checksums.seal((recipe_yaml + _RECIPE_SEAL).encode()))

    def recipe_is(self, recipe_yaml: str) -> bool:
        """Whether recipe.yaml is this one; `DamagedError` if its checksum does not match."""
        data = self.read_verified(RECIPE)
        return data is not None and data[: -len(_RECIPE_SEAL)] == recipe_yaml.encode()

    def environment(self) -> dict[str, Any] | None:
        """The content of environment.json; None before the run has begun."""
        return self._validated(ENVIRONMENT, Environment)

    def labelled(self) -> bool:
        """Whether the images have labels, as far as known."""
        try:
            return bool((self.environment() or {}).get("labelled", True))
        except DamagedError:
            return True

    @property
    def has_checksums(self) -> bool:
        """Whether the run was begun by a version that writes checksums."""
        return bool((self.environment() or {}).get("checksums"))

    def needs_checksum(self, name: str) -> bool:
        if name == ENVIRONMENT:
            return b'"checksums": true' in (self.read_unverified(name) or b"")
        return self.has_checksums

    def _validated(self, name: str, model: type[Environment] | type[Status]) -> dict[str, Any] | None:
        content = self.read_json(name)
        if content is not None:
            self._require(name, model, content)
        return content

    def _require(self, name: str, model: Any, content: Any) -> None:
        try:
            require(model, content)
        except ValueError as error:
            raise self.damaged(name, str(error)) from error

    # ------------------------------------------------------------------ what a run leaves behind
    def write_records(self, name: str, records: list[dict[str, Any]]) -> None:
        """Write one record per line; the last line holds the checksum of all."""
        *others, last = records
        sealed = [*others, {**last, checksums.FIELD: checksums.BLANK}]
        text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in sealed)
        self.write_bytes(name, checksums.seal(text.encode()))

    def read_records(self, name: str) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, trace.jsonl or knn.jsonl; empty if there is no such file."""
        try:
            records = [json.loads(line) for line in (self.read_verified(name) or b"").splitlines()]
        except (ValueError, RecursionError) as error:
            raise self.damaged(name, str(error)) from error
        for record in records:
            self._require(name, Epoch if name == METRICS else Record, record)
            record.pop(checksums.FIELD, None)
        return records

    def write_status(self, state: str, **facts: Any) -> None:
        """`state` is one of running, interrupted, failed, finished.

        Where successive halving stopped the run stays in it until it is finished, unless `stopped` says otherwise.
        """
        if state != "finished" and "stopped" not in facts:
            with suppress(DamagedError):
                facts["stopped"] = self.status().get("stopped")
        if facts.get("stopped") is None:
            facts.pop("stopped", None)
        self.write_json(STATUS, {"state": state, **facts})

    def status(self) -> dict[str, Any]:
        """Where the run stands; `DamagedError` if the status cannot be trusted."""
        return self._validated(STATUS, Status) or {"state": "new"}

    @property
    def finished(self) -> bool:
        return self.status()["state"] == "finished" and self.file(ENCODER).is_file()

    def failure(self) -> str | None:
        """Why the run failed; None if it did not."""
        status = self.status()
        if status["state"] != "failed":
            return None
        what = status.get("error") or "it failed"
        return str(RunError(what, where=status.get("where"), remedy=status.get("remedy")))

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        import torch

        written = io.BytesIO()  # torch's own error for a full disk is unclear
        torch.save(dict(state), written)
        comment = f"{checksums.FIELD}: {checksums.BLANK}".encode()  # of the zip archive that torch writes
        written.seek(-2, os.SEEK_END)
        written.write(len(comment).to_bytes(2, "little") + comment)
        checksums.seal_file(written)
        self.write_bytes(CHECKPOINT, written.getbuffer())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, on the CPU; None if there is none; `DamagedError` if its checksum does not match."""
        import torch

        try:
            with open_to_read(self.file(CHECKPOINT)) as file:
                self.verify(CHECKPOINT, file)
                file.seek(0)
                return torch.load(file, map_location="cpu", weights_only=True)
        except DamagedError:
            raise
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.damaged(CHECKPOINT, error.strerror or str(error)) from error
        except Exception as error:  # without a checksum; what unpickling raises is undocumented
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise self.damaged(CHECKPOINT, reason) from error

    def require_checkpoint(self, content: Any, *, fingerprint: str, num_steps: int) -> None:
        """`DamagedError` unless the checkpoint belongs to this run and to one of its steps."""
        self._require(CHECKPOINT, Checkpoint, content)
        step, of_run = content["trainer"]["step"], content.get("fingerprint", fingerprint)
        if of_run != fingerprint:
            raise self.damaged(CHECKPOINT, f"it is of another run (fingerprint {of_run}, not {fingerprint})")
        if step > num_steps:
            raise self.damaged(CHECKPOINT, f"it is of step {step}, beyond the last of the run, {num_steps}")

    def save_weights(self, name: str, state: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Write the weights, with `facts` in the file's header."""
        self.write_bytes(name, packed(state, facts))

    def load_weights(self, name: str, *, fingerprint: str | None = None) -> dict[str, torch.Tensor]:
        """The weights; `DamagedError` if the checksum does not match or the run has another fingerprint."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            with open_to_read(self.file(name)) as file:
                self.verify(name, file, in_header=True)
                file.seek(0)
                of_run = facts_in(file).get("fingerprint", fingerprint)
            weights = load_file(self.file(name))  # maps it into memory: faster than from the bytes just read
        except (SafetensorError, OSError, ValueError) as error:
            raise self.damaged(name, str(error)) from error
        if fingerprint is not None and of_run != fingerprint:
            raise self.damaged(name, f"it is of another run (fingerprint {of_run}, not {fingerprint})")
        return weights

    def facts_of_weights(self, name: str) -> dict[str, Any]:
        """What the header of a file of weights says; `DamagedError` if it cannot be read."""
        try:
            with open_to_read(self.file(name)) as file:
                return facts_in(file)
        except (OSError, ValueError) as error:
            raise self.damaged(name, str(error)) from error

    def encoder_digest(self) -> str | None:
        """The digest of the encoder's weights as stored in its file; None if written without."""
        return self.facts_of_weights(ENCODER).get(WEIGHTS_DIGEST)

    # ------------------------------------------------------------------ results
    def write_result(self, name: str, content: Mapping[str, Any]) -> None:
        """Write probe.json or analysis.json; an existing one with other settings is kept as NAME-DIGEST.json.

        A damaged one is replaced: the caller has reported it.
        """
        try:
            before = self.latest_result(name)
        except DamagedError:
            before = None
        if before is not None and before["settings"] != _as_json(content["settings"]):
            with explained(self.file(name), "Make the folder writable."):
                self.file(name).replace(self._kept(name, before["settings"]))
        self.write_json(name, content)
        self.remove(kept_name(name, content["settings"]))

    def read_result(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The finished run's result with these settings; a result of another format does not count.

        `DamagedError` if a file that could hold it fails its checksum or was measured on another run.
        """
        if not self.finished:
            return None
        wanted, damage = _as_json(settings), None
        for file in (name, kept_name(name, settings)):
            try:
                content = self.latest_result(file)
            except DamagedError as error:
                damage = damage or error
                continue
            if content is not None and content["settings"] == wanted:
                return content
        if damage is not None:  # its settings are unknown
            raise damage
        return None

    def recall_result(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """`read_result`, which also makes the result the latest again: the file `name` is always the last asked for.

        Takes the lock if files must be moved; in a read-only folder nothing is moved.
        """
        found = self.read_result(name, settings)
        if found is not None and self.latest_result(name) != found:
            try:
                with self.locked():
                    self.write_result(name, found)
            except (InUseError, DamagedError):
                raise
            except InputError:
                return found
        return found

    def make_latest(self, name: str, result: Mapping[str, Any]) -> None:
        """Under the lock: move this result, kept under another name, back to the file `name`."""
        try:
            latest = self.latest_result(name)
        except DamagedError:
            latest = None
        if latest != result:
            self.write_result(name, result)

    def results(self, name: str) -> list[Path]:
        """The files of all results of this name, the latest first."""
        return [path for path in (self.file(name), *sorted(self.path.glob(_kept_name(name, "*")))) if path.exists()]

    def transfers(self) -> list[str]:
        """The names of the accuracies on other sets of images."""
        return [f"{TRANSFER}/{path.name}" for path in sorted(self.file(TRANSFER).glob("*.json"))]

    def _kept(self, name: str, settings: Mapping[str, Any]) -> Path:
        return self.file(kept_name(name, settings))

    def latest_result(self, file: str) -> dict[str, Any] | None:
        """The result in a file, with any settings; a result of another format does not count."""
        content = self.read_json(file)
        if content is None:
            return None
        if content.get("format") != RESULTS_FORMAT and isinstance(content.get("format"), int):
            return None
        self._require(file, Result, content)
        run = self.environment() or {}
        for key in ("fingerprint", "content_key"):
            if content[key] != run.get(key, content[key]):
                raise self.damaged(file, f"it was measured on another run ({key} {content[key]}, not {run[key]})")
        measured = content.get("encoder_sha256")
        if measured is not None and measured != self.encoder_digest():
            raise self.damaged(file, f"it was measured on another encoder than {ENCODER}")
        if file.startswith(PROBE.removesuffix(".json")):
            self._require(file, Probe, content)
        else:
            try:
                require_analysis(content)
            except ValueError as error:
                raise self.damaged(file, str(error)) from error
        return content


def kept_name(name: str, settings: Mapping[str, Any]) -> str:
    """The file of a result with these settings once it is no longer the latest."""
    return _kept_name(name, hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10])


def _kept_name(name: str, digest: str) -> str:
    return name.replace(".json", f"-{digest}.json")


def _as_json(settings: Any) -> Any:
    """Settings after a round trip through JSON: tuples become lists."""
    if isinstance(settings, Mapping):
        return {key: _as_json(value) for key, value in settings.items()}
    if isinstance(settings, Sequence) and not isinstance(settings, str):
        return [_as_json(value) for value in settings]
    return settings


def find_runs(parent: Path) -> list[Path]:
    """The run directories directly under `parent`, by name."""
    return sorted(recipe.parent for recipe in parent.glob(f"*/{RECIPE}"))


def runs_in(path: Path) -> list[RunDir]:
    """The run at `path`, or the runs in the folder of a sweep; `InputError` if it is neither."""
    if is_folder(path) and not (path / RECIPE).exists() and (found := find_runs(path)):
        return [RunDir.open(run) for run in found]
    return [RunDir.open(path)]


def _list_runs(parent: Path) -> str:
    runs = find_runs(parent) if is_folder(parent) else []
    if not runs:
        return "Give the directory that `cssl pretrain` printed, for example runs/NAME-FINGERPRINT."
    newest = sorted(runs, key=lambda run: (run / RECIPE).lstat().st_mtime, reverse=True)[:5]
    return "Runs there, newest first: " + ", ".join(str(run) for run in newest)
