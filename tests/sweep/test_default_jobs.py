"""How many members run at a time where the user does not say."""

from pathlib import Path

import pytest

from cssl_cli.errors import InputError
from cssl_cli.runs import memory
from cssl_cli.sweep import jobs
from cssl_cli.sweep.jobs import choose_jobs, parse_jobs
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.sweep import load_sweep

GIB = 2.0**30


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *overrides: str,
    cores: int = 4,
    gib: float | None = None,
    gpu: bool = False,
    device: str | None = None,
    threads: str | None = None,
    only: int | None = None,
) -> int | None:
    monkeypatch.setattr(jobs, "available_cores", lambda: cores)
    monkeypatch.setattr(jobs, "_GPUS", ("null",) if gpu else ())
    monkeypatch.setattr(memory, "free_memory", lambda: None if gib is None else gib * GIB)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    sweep = load_sweep("quickstart", overrides)
    request = SweepRequest(sweep, tmp_path, None if only is None else sweep.members[:only], device=device)
    return choose_jobs(request, {} if threads is None else {"OMP_NUM_THREADS": threads})


def test_one_member_a_core_but_no_more_than_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert chosen(monkeypatch, tmp_path, cores=4) == 4
    assert chosen(monkeypatch, tmp_path, cores=64) == 6
    assert chosen(monkeypatch, tmp_path, "seeds=3", cores=64) == 18
    assert chosen(monkeypatch, tmp_path, cores=1) is None


def test_what_is_left_does_not_change_the_threads_of_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert chosen(monkeypatch, tmp_path, cores=4, only=1) == 4


def test_threads_of_the_user_take_their_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert chosen(monkeypatch, tmp_path, cores=8, threads="2") == 4
    assert chosen(monkeypatch, tmp_path, cores=8, threads="8") is None
    assert chosen(monkeypatch, tmp_path, cores=4, threads="1,1") == 4


def test_no_more_than_memory_has_room_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needs = [
        memory.largest_need(member.recipe, None, trained=False) / GIB for member in load_sweep("quickstart").members
    ]
    assert chosen(monkeypatch, tmp_path, cores=64, gib=6.1 * max(needs)) == 6
    assert chosen(monkeypatch, tmp_path, cores=64, gib=3 * max(needs)) == 3
    assert chosen(monkeypatch, tmp_path, cores=64, gib=max(needs)) == 1
    with pytest.raises(InputError):
        chosen(monkeypatch, tmp_path, cores=64, gib=0.001)


def test_on_a_gpu_one_after_another_in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert chosen(monkeypatch, tmp_path, gpu=True) is None
    assert chosen(monkeypatch, tmp_path, gpu=True, device="cpu") == 4
    assert chosen(monkeypatch, tmp_path, device="cuda:1") is None
    monkeypatch.setattr(jobs, "_GPUS", ("null",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_jobs(SweepRequest(load_sweep("quickstart"), tmp_path), {}) == 4


def test_what_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_jobs("3") == 3
    assert parse_jobs("auto") is None
    assert parse_jobs(None) == 0, "as tests have it in their environment"
    monkeypatch.setenv("CSSL_JOBS", "")
    assert parse_jobs(None) is None
    for wrong in ("-1", "two", "²", "1.5", "9999999"):
        with pytest.raises(InputError, match=r"is no number of members") as refused:
            parse_jobs(wrong)
        assert refused.value.where == "--jobs"
        monkeypatch.setenv("CSSL_JOBS", wrong)
        with pytest.raises(InputError) as refused:
            parse_jobs(None)
        assert refused.value.where == "CSSL_JOBS"
