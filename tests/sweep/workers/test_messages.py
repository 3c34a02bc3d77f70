"""What a sweep and its workers say to each other comes through pipes as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from cssl_cli.host.progress import TaskProgress
from cssl_cli.sweep.workers import process
from cssl_cli.sweep.workers.messages import Ended, Lines, Message, RankTask, Task, decode, encode
from cssl_cli.sweep.workers.process import run_alone


@pytest.mark.parametrize(
    "message",
    [
        Task({"name": "é\n", "train": {"steps": 3}}, "home", "log", None, 3, True, False, "heading"),
        TaskProgress("pretrain", 3, 9, "epoch 1\tloss ∞"),
        Ended(error="what\nhappened", stopped=15, retire=True),
    ],
)
def test_messages_come_through_pipes_as_they_were(message: Message) -> None:
    data = encode(message) + encode(Ended())
    lines = Lines()
    found = [decode(line) for part in range(0, len(data), 7) for line in lines.feed(data[part : part + 7])]
    assert found == [message, Ended()]


def test_what_python_prints_when_it_starts_is_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a site's own sitecustomize.py."""
    said = b"loading modules\n{}\n[1]\n" + encode(Ended(error="it failed"))
    code = f"import os; os.write(1, {said!r}); os.read(0, 1)"
    monkeypatch.setattr(process, "_CODE", code.replace("{", "{{").replace("}", "}}"))
    task = RankTask([], 40, 0, str(tmp_path), str(tmp_path / "log"), None, "rank")
    assert run_alone(task, threads=1, tell=lambda _: None) == Ended(error="it failed")
