"""What a sweep's jobs ask of the cluster: where it is said, what wins, and that no result depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cssl_cli.errors import InputError
from cssl_cli.sweep.cluster.settings import Launcher, read_launcher
from cssl_cli.sweep.stored import NAME, load_stored_sweep, store_sweep
from cssl_cli.sweep.sweep import load_sweep
from tests.support.commands import TINY_RECIPE

BASE = """
name: below
base: tiny.yaml
axes: {optim.lr: [0.1, 0.2]}
launcher: {partition: below, cpus: 2, time: 1h, sbatch: {account: below, qos: low}}
"""
SWEEP = """
name: above
based_on: below.yaml
launcher:
  partition: above
  pack: 3
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    (tmp_path / "below.yaml").write_text(BASE)
    (tmp_path / "above.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_user(files: Path, text: str) -> dict[str, str]:
    (files / "config" / "cssl").mkdir(parents=True, exist_ok=True)
    (files / "config" / "cssl" / "launcher.yaml").write_text(text)
    return {"XDG_CONFIG_HOME": str(files / "config")}


def launcher(*overrides: str, environment: dict[str, str]) -> Launcher:
    return read_launcher(load_sweep("above.yaml", overrides).given, environment)


def test_later_ones_win_field_by_field(files: Path) -> None:
    nobody = {"XDG_CONFIG_HOME": str(files / "nowhere")}
    alone = launcher(environment=nobody)
    assert (alone.partition, alone.cpus, alone.time, alone.pack) == ("above", 2, "1h", 3)
    user = of_user(files, "partition: mine\ntime: 2h\nsbatch: {qos: high}\n")
    with_user = launcher(environment=user)
    assert (with_user.partition, with_user.cpus, with_user.time) == ("mine", 2, "2h")
    assert with_user.sbatch == {"account": "below", "qos": "high"}
    last = launcher("launcher.time=90m", "~launcher.cpus", "launcher.sbatch.qos=null", environment=user)
    assert (last.partition, last.cpus, last.time, last.sbatch) == ("mine", None, "90m", {"account": "below"})
    assert launcher("~launcher", environment=user) == Launcher()


def test_the_user_s_file_is_in_the_home_folder_by_default(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_user(files, "at_once: 7\n")
    (files / "config").rename(files / ".config")
    monkeypatch.setenv("HOME", str(files))
    assert launcher(environment={}).at_once == 7
    (files / ".config" / "cssl" / "launcher.yaml").write_text("# nothing yet\n")
    assert launcher(environment={}).at_once is None


def test_options_of_sbatch() -> None:
    assert Launcher().options() == {"signal": "USR1@120", "requeue": True}
    full = Launcher.model_validate(
        {
            "partition": "gpu",
            "gpus": 2,
            "time": "1h30m",
            "memory": "16G",
            "cpus": 4,
            "notice": 60,
            "sbatch": {"exclusive": True, "mail-type": "END"},
        }
    )
    assert full.options() == {
        "partition": "gpu",
        "gpus-per-node": 2,
        "time": 90,
        "mem": "16G",
        "cpus-per-task": 4,
        "exclusive": True,
        "mail-type": "END",
        "signal": "USR1@60",
        "requeue": True,
    }
    assert Launcher(time="61s").options()["time"] == 2, "whole minutes, not fewer than asked for"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time: 90", "must be a duration such as 30m"),
        ("time: 1:30:00", "must be a duration such as 30m"),
        ("memory: 16 GB", "must be a size such as 500M or 16G"),
        ("pack: 0", "launcher.pack"),
        ("patition: gpu", "did you mean launcher.partition?"),
        ("sbatch: {time: 10}", "names time, which launcher.time sets"),
        ("sbatch: {job-name: x}", "names job-name, which cssl sets itself"),
        ("sbatch: {wait: true}", "names wait, which cssl sets itself"),
        ("sbatch: {mail_type: END}", "without --: mail-type"),
        ('sbatch: {comment: "a\\nrm -rf x"}', "no text on one line"),
        ("sbatch: {nice: [1]}", "no text on one line"),
    ],
)
def test_faults_say_where(files: Path, text: str, words: str) -> None:
    user = of_user(files, f"# mine\n{text}\n")
    with pytest.raises(InputError) as refused:
        launcher(environment=user)
    assert words in str(refused.value)
    assert "config/cssl/launcher.yaml, line 2)" in str(refused.value)
    (files / "above.yaml").write_text(f"name: above\nbased_on: below.yaml\nlauncher:\n  {text}\n")
    with pytest.raises(InputError) as refused:
        load_sweep("above.yaml")  # also without a cluster
    assert words in str(refused.value)
    assert "(line 4)" in str(refused.value)


def test_no_result_depends_on_it(files: Path) -> None:
    plain, asking = load_sweep("above.yaml", ["~launcher"]), load_sweep("above.yaml", ["launcher.time=3h"])
    assert [one.fingerprint for one in plain.members] == [one.fingerprint for one in asking.members]
    kept: list[Any] = []
    for sweep in (plain, asking):
        (files / "runs").mkdir(exist_ok=True)
        store_sweep(sweep, files / "runs")
        kept.append((files / "runs" / NAME).read_text())
        assert load_stored_sweep(files / "runs").members == plain.members
    assert kept[0] == kept[1]
    assert "launcher" not in kept[0]
