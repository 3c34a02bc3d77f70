"""Signals that ask to end: wherever the program stands, put off, ignored, insisted on."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cssl_cli.errors import Interrupted
from cssl_cli.host import signals
from cssl_cli.host.progress import Silent
from cssl_cli.host.signals import ENDING, Stopped, deferred_signals, end_on_signals, ending_on_signals
from cssl_cli.recipe import load_recipe
from cssl_cli.report import recipes
from cssl_cli.runs import pretrain as pretraining
from cssl_cli.runs.training_trace import KnnTrace
from tests.support.commands import Invoke, the_run


@pytest.fixture(autouse=True)
def default_signals() -> Iterator[None]:
    """As in a shell's foreground; tests may run in its background, or under nohup."""
    before = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def forked(work: Callable[[], None]) -> tuple[int, float]:
    """Exit code of a process that does the work, and the seconds that it took."""
    begun = time.monotonic()
    process = os.fork()
    if process == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - begun


# ---------------------------------------------------------------------- wherever it stands
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_a_command_with_its_exit_code(
    number: int, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {one: signal.getsignal(one) for one in ENDING}
    monkeypatch.setattr(recipes, "list_recipes", lambda: send(number))
    stopped = invoke("recipes")
    assert (stopped.code, stopped.stdout, stopped.stderr) == (128 + number, "", "interrupted\n")
    assert {one: signal.getsignal(one) for one in ENDING} == before


def test_a_signal_that_a_library_passes_on_as_another_error(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        try:
            send(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr(recipes, "list_recipes", load)
    stopped = invoke("recipes")
    assert (stopped.code, stopped.stderr) == (143, "interrupted\n")


def test_what_was_ignored_stays_so(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    monkeypatch.setattr(recipes, "list_recipes", lambda: send(signal.SIGHUP) or ())
    assert invoke("recipes").code == 0
    with deferred_signals() as pending:
        send(signal.SIGHUP)
    assert pending == []
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def swallow() -> None:
    with suppress(KeyboardInterrupt):
        send(signal.SIGTERM)
        time.sleep(5)


@pytest.mark.parametrize("more_files", [0, 1100])
def test_work_that_does_not_return_is_ended(more_files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "GRACE", 0.2)

    def compute() -> None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        for _ in range(more_files):
            os.dup(0)
        with ending_on_signals():
            swallow()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # no Python code runs in the main thread

    code, seconds = forked(compute)
    assert code == 143
    assert seconds < 5


def test_a_second_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "ONE_REQUEST", 0.1)
    monkeypatch.setattr(signals, "GRACE", 60.0)

    def insist() -> None:
        with ending_on_signals():
            swallow()
            send(signal.SIGTERM)  # an echo of the first
            time.sleep(0.2)
            send(signal.SIGINT)
            time.sleep(30)

    assert forked(insist)[0] == 130


def test_signals_that_are_put_off_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "GRACE", 0.1)

    def save() -> None:
        with ending_on_signals(), deferred_signals() as pending:
            send(signal.SIGUSR1)
            time.sleep(1)
            os._exit(7 if pending == [signal.SIGUSR1] else 8)

    assert forked(save)[0] == 7


def test_a_stop_that_python_cannot_raise_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cleaned:
        def __init__(self, fault: bool) -> None:
            self.fault = fault

        def __del__(self) -> None:
            send(signal.SIGTERM)
            if self.fault:
                raise ValueError("a bug")

    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: shown.append(raised.exc_type))
    with ending_on_signals():
        Cleaned(fault=False)
        assert shown == []
        Cleaned(fault=True)
        assert shown == [ValueError]


def test_where_nothing_is_lost_signals_are_not_put_off() -> None:
    with deferred_signals() as pending:
        with pytest.raises(Stopped), pending.at_once():
            send(signal.SIGTERM)
        send(signal.SIGINT)
        assert pending == [signal.SIGTERM, signal.SIGINT]
        with pytest.raises(Stopped), pending.at_once():
            pytest.fail("a signal had come before")


@pytest.mark.parametrize(("patient", "code"), [(True, 0), (False, 138)])
def test_a_patient_process_is_not_hurried_by_a_second_signal(
    patient: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "ONE_REQUEST", 0.1)
    monkeypatch.setattr(signals, "GRACE", 0.2)

    def save() -> None:
        end_on_signals(patient=patient)
        with suppress(Stopped), deferred_signals() as pending:
            for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):
                send(number)
                time.sleep(0.3)
            assert pending == [signal.SIGUSR1, signal.SIGTERM]
            os._exit(0)
        os._exit(138)

    assert forked(save)[0] == code


# ---------------------------------------------------------------------- in training
def test_a_measurement_that_is_interrupted_is_made_when_the_run_goes_on(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(tiny_recipe), ["train.epochs=2", "train.batch_size=128", "probe.every=1"])
    pretraining.pretrain(recipe, out=tmp_path / "undisturbed", reporter=Silent())
    measure = KnnTrace.measure
    for epoch in (1, 2):

        def interrupt(self: KnnTrace, *arguments: object, at: int = epoch, **options: object) -> object:
            if options["epoch"] == at:
                send(signal.SIGHUP)
            return measure(self, *arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(KnnTrace, "measure", interrupt)
        with pytest.raises(Interrupted) as stopped:
            pretraining.pretrain(recipe, out=tmp_path / "runs", reporter=Silent())
        assert stopped.value.exit_code == 128 + signal.SIGHUP
        assert f"Saved at step {2 * epoch} of 4" in str(stopped.value.remedy)
        assert json.loads((the_run(tmp_path) / "status").read_text())["state"] == "interrupted"
    monkeypatch.setattr(KnnTrace, "measure", measure)
    run = pretraining.pretrain(recipe, out=tmp_path / "runs", reporter=Silent())
    (other,) = (tmp_path / "undisturbed").iterdir()
    for name in ("knn.jsonl", "encoder.safetensors"):
        assert run.file(name).read_bytes() == (other / name).read_bytes()


def test_a_signal_in_the_first_step_ends_at_once(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have to be compiled, and there is nothing to save."""
    monkeypatch.setattr("cssl_cli.train.loop.Trainer._train_step", lambda *_: send(signal.SIGTERM))
    with pytest.raises(Interrupted, match="interrupted") as stopped:
        pretraining.pretrain(load_recipe(str(tiny_recipe), []), out=tmp_path / "runs", reporter=Silent())
    assert stopped.value.exit_code == 143
    assert not (the_run(tmp_path) / "checkpoint.pt").exists()


def test_signals_are_deferred_and_those_before_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with deferred_signals() as pending:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert pending == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) == before
    found: list[list[int]] = []

    def elsewhere() -> None:
        with deferred_signals() as pending:
            found.append(pending)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [[]]
