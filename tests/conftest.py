"""Fixtures that tests share: a cache of their own, a trained run, the command line as a function and as a process."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cssl_cli.cli.app import app
from cssl_cli.host.signals import ENDING
from tests.support.commands import QUICKLY_MEASURED, TINY_RECIPE, CommandLine, Invoke, Outcome, command

# What tests compute is small: threads would wait for one another longer than they compute, those of several workers
# longest. numpy reads the variable when it is imported, and so do the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

# Other work on the machine may make any example slow. The same examples everywhere: a failure is one of the change.
hypothesis.settings.register_profile("cssl", deadline=None, derandomize=True)
hypothesis.settings.load_profile("cssl")


def pytest_configure(config: pytest.Config) -> None:
    """Signals as a terminal gives them: a shell's background job begins with some ignored, which `cssl` leaves so.

    And a test that is named runs, although it is marked `soak`.
    """
    if config.option.markexpr == "not soak" and any("::" in argument for argument in config.args):
        config.option.markexpr = ""
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with what takes longest first, so that no worker is left with it at the end; whole, for their fixtures."""
    long = {item.path for item in items if item.get_closest_marker("long") is not None}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    """What thousands of tests are made of is no garbage: looking through it would take half a second every time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Whether the GPU path was followed, which builds of torch without CUDA cannot."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    reports = [one for one in reports if isinstance(one, pytest.TestReport) and "test_gpu_path.py" in one.nodeid]
    done = [str(value) for report in reports for name, value in report.user_properties if name == "gpu path"]
    skipped = any(report.skipped for report in reports)
    if done or skipped:
        said = f"followed without a GPU ({', '.join(sorted(set(done)))})" if done else "not followed: skipped"
        terminalreporter.write_line(f"The GPU path, torch {version('torch')}: {said}")


@pytest.fixture(autouse=True, scope="session")
def sweeps_in_this_process() -> Iterator[None]:
    """Unless `--jobs` says otherwise, which costs seconds: a process of its own imports torch."""
    os.environ["CSSL_JOBS"] = "0"
    yield
    del os.environ["CSSL_JOBS"]


@pytest.fixture(autouse=True)
def pages_and_figures_where_they_are_tested(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere, commands write no report.html, and figures are made but not drawn: both cost seconds each time."""
    if {"document", "figures"} & set(request.path.parts) or request.node.get_closest_marker("page") is not None:
        return
    from matplotlib.figure import Figure

    from cssl_cli.report.document import writing
    from cssl_cli.report.figures import style

    monkeypatch.setattr(writing, "attempt", lambda document, path: None)
    monkeypatch.setattr(style, "fix_layout", lambda figure: None)
    draw = Figure.savefig

    def write_empty(figure: Figure, place: Any, **options: Any) -> None:
        place.write_bytes(b"") if isinstance(place, Path) else draw(figure, place, **options)

    monkeypatch.setattr(Figure, "savefig", write_empty)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CSSL_CACHE"] = str(folder)
    yield folder
    del os.environ["CSSL_CACHE"]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    import torch  # not by the process that hands tests to workers

    torch.set_num_threads(1)


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """A recipe file that trains in about a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and probed run of the tiny recipe; tests that change it work on copies."""
    from cssl_cli.host.progress import Silent
    from cssl_cli.recipe import load_recipe
    from cssl_cli.runs.pretrain import pretrain
    from cssl_cli.runs.probe import probe

    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY_RECIPE)
    run = pretrain(load_recipe(str(folder / "tiny.yaml"), ["train.epochs=1"]), out=folder, reporter=Silent())
    probe(run.path, reporter=Silent())
    return run.path


@pytest.fixture(scope="session")
def analyzed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with its analysis."""
    from cssl_cli.host.progress import Silent
    from cssl_cli.runs.analyze import analyze

    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("analyzed") / trained.name))
    analyze(run, reporter=Silent())
    return run


@pytest.fixture(scope="session")
def quickly_measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished, probed and analyzed run of what measures most quickly; tests that change it work on copies."""
    from cssl_cli.host.progress import Silent
    from cssl_cli.recipe import load_recipe
    from cssl_cli.runs.analyze import analyze
    from cssl_cli.runs.pretrain import pretrain
    from cssl_cli.runs.probe import probe

    folder = tmp_path_factory.mktemp("quick")
    (folder / "tiny.yaml").write_text(QUICKLY_MEASURED)
    run = pretrain(load_recipe(str(folder / "tiny.yaml"), ["train.epochs=1"]), out=folder, reporter=Silent())
    probe(run.path, reporter=Silent())
    analyze(run.path, reporter=Silent())
    return run.path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs" / trained.name))


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a folder one that may only be read, for root, too, as on a disk that is mounted so."""

    def make(folder: Path) -> None:
        def refusing(function: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
            def refuse(path: Any, *rest: Any, **keywords: Any) -> Any:
                inside = isinstance(path, str | os.PathLike) and Path(path).absolute().is_relative_to(folder)
                if inside and writes(*rest):
                    if function is os.access:
                        return False
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
                return function(path, *rest, **keywords)

            return refuse

        to_write = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        monkeypatch.setattr(os, "open", refusing(os.open, lambda flags, *_: bool(flags & to_write)))
        monkeypatch.setattr(os, "access", refusing(os.access, lambda mode, *_: bool(mode & os.W_OK)))
        for name in ("unlink", "replace", "rename", "rmdir"):
            monkeypatch.setattr(os, name, refusing(getattr(os, name), lambda *_: True))

    return make


@pytest.fixture
def cssl(tmp_path: Path) -> CommandLine:
    """Run `cssl ARGUMENTS` as a process of its own in `tmp_path`; returns when it has ended."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1", **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def cssl_here(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The same in this process, which spares the seconds that a process takes to start."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            outcome = invoke(*arguments)
        return subprocess.CompletedProcess(list(arguments), outcome.code, outcome.stdout, outcome.stderr)

    return run


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Invoke:
    """Run a command in this process, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        try:
            app([str(argument) for argument in arguments], prog_name="cssl")
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
