"""The stages of a member in one process, and what of it outlives them."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from cssl_cli.errors import RunError
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.sweep.workers.stages import Missing, Workshop


class Held:
    """As a trainer, with weights and images on a GPU, which is in a circle."""

    def __init__(self) -> None:
        self.own = self


def test_a_member_leaves_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Held]] = []
    monkeypatch.setattr(Workshop, "_stages", lambda *_: held.append(weakref.ref(Held())))
    missing = Missing(probe=True, analysis=True)
    gc.disable()
    try:
        assert Workshop(tmp_path, Silent(), None).complete(load_recipe("simclr-shapes"), missing) is None
        assert held[0]() is None
    finally:
        gc.enable()


def test_a_failure_keeps_nothing_of_its_member_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Held]] = []

    def fail(*_: object) -> None:
        trainer = Held()
        held.append(weakref.ref(trainer))
        try:
            raise ValueError("behind it")
        except ValueError as error:
            raise RunError("the loss became infinite", remedy="Lower optim.lr.") from error

    monkeypatch.setattr(Workshop, "_stages", fail)
    missing = Missing(probe=True, analysis=True)
    failure = Workshop(tmp_path, Silent(), None).complete(load_recipe("simclr-shapes"), missing)
    assert failure is not None
    assert failure.sentence == "the loss became infinite\nLower optim.lr."
    assert held[0]() is None
