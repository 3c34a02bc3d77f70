"""What a sweep and its workers say to each other comes through pipes as it was."""

from __future__ import annotations

import pytest

from cssl_cli.host.progress import TaskProgress
from cssl_cli.sweep.workers.messages import Ended, Lines, Message, Task, decode, encode


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
