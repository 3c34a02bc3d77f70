"""The parts of a measurement, dealt to the ranks of a team: who is free takes the next.

Each part is computed whole, by one rank, from what all of them have. So it comes to what one process makes of it,
number by number, whoever takes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from cssl_cli.nn.ranks import Ranks
from cssl_cli.runs.team import Team

Part = Callable[[], dict[str, Any]]


def dealt(parts: Mapping[str, Part], team: Team) -> dict[str, dict[str, Any]]:
    """What each part comes to, JSON types, in their order; all ranks receive it. Those that take longest come first."""
    if team.ranks.alone:
        return {name: part() for name, part in parts.items()}
    assert team.watch is not None
    own, names = {}, list(parts)
    with team.explaining():
        for number in team.watch.numbers():
            if number >= len(names):
                break
            own[names[number]] = parts[names[number]]()
        found = gathered(own, team.ranks)
    return {name: found[name] for name in names}


def gathered(own: Mapping[str, Any], ranks: Ranks) -> dict[str, Any]:
    """What all ranks give, JSON types under names that no two of them use, received by all."""
    text = torch.frombuffer(bytearray(json.dumps(own).encode()), dtype=torch.uint8)
    lengths = ranks.rows_of_all(torch.tensor([len(text)])).tolist()
    texts = ranks.rows_of_all(F.pad(text, (0, max(lengths) - len(text)))).split(max(lengths))
    found: dict[str, Any] = {}
    for padded, length in zip(texts, lengths, strict=True):
        found |= json.loads(padded[:length].numpy().tobytes())
    return found
