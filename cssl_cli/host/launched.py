"""How many processes `torchrun`, or another launcher with its variables, has started for this command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from cssl_cli.errors import InputError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets

Environment = Mapping[str, str]


def num_processes(environment: Environment = os.environ) -> int:
    """How many processes were started for this command; 1 where nothing says so.

    `InputError` where a launcher's variable is no number, or one of several processes lacks one.
    """
    if not {"RANK", "WORLD_SIZE"} <= environment.keys():
        return 1
    size = number_of("WORLD_SIZE", environment, least=1)
    missing = [name for name in VARIABLES if name not in environment]
    if size > 1 and missing:
        raise InputError(
            f"{size} processes were started, and {', '.join(missing)} is not set",
            remedy="Start them with torchrun, which sets what they need.",
        )
    if size > 1:
        number_of("RANK", environment, most=size - 1)
        number_of("MASTER_PORT", environment, least=1, most=2**16 - 1)
    return size


def repeats_another(environment: Environment = os.environ) -> bool:
    """Whether another process of this machine, started for the same command, says all that this one could say."""
    with suppress(InputError):  # which all of them tell
        return num_processes(environment) > 1 and number_of("LOCAL_RANK", environment) > 0
    return False


def number_of(name: str, environment: Environment, *, least: int = 0, most: int | None = None) -> int:
    """A whole number that a launcher has set."""
    text = environment[name]
    if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
        raise InputError(
            f"{text!r} is not a whole number "
            + (f"of at least {least}" if most is None else f"from {least} to {most}"),
            where=name,
            remedy="Start with torchrun, which sets it, or unset it.",
        )
    return int(text)


def require_one_process(what: str) -> None:
    """`InputError` where several processes were started for what runs in one."""
    if num_processes() > 1:
        raise InputError(
            f"{num_processes()} processes were started for {what}, which runs in one",
            remedy="Call it without torchrun, which is for `cssl pretrain`, `cssl probe RUN`, and `cssl analyze` of a "
            "run or a recipe.",
        )


def require_float32(precision: str) -> None:
    """`InputError` where several processes are to share features whose error is estimated by one."""
    if precision != "float32" and num_processes() > 1:
        raise InputError(
            f"several processes compute features in float32, not in {precision}",
            where="--precision",
            remedy="Leave it out, or call it without torchrun.",
        )
