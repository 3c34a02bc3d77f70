"""Several ranks as threads of one process, over gloo: the exchanges are real, and nothing has to be imported again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from cssl_cli.nn.ranks import ALONE, ExchangeError, Ranks

Result = TypeVar("Result")
PATIENCE = timedelta(seconds=60)  # where one rank has failed, which the others then do, too


def on_ranks(size: int, work: Callable[[Ranks], Result]) -> list[Result]:
    """What `work` returns for each of `size` ranks; for one it is called as a single process would call it."""
    if size == 1:
        return [work(ALONE)]
    store = dist.HashStore()
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def be(rank: int) -> None:
        try:
            options = dist.ProcessGroupGloo._Options()
            options._devices = [dist.ProcessGroupGloo.create_device(interface="lo")]
            options._timeout = PATIENCE
            results[rank] = work(Ranks.over(dist.ProcessGroupGloo(store, rank, size, options), rank, size))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=be, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, ExchangeError)), errors[0])
    return [results[rank] for rank in range(size)]
