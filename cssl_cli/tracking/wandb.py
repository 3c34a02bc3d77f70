"""Weights & Biases: a run of the fingerprint's id. Without a key it stays on this machine."""

from __future__ import annotations

import netrc
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from cssl_cli.tracking.mirror import Say
from cssl_cli.tracking.records import Point, Records, Values

REACHING = 30.0  # seconds that the beginning of a run waits for the server
UPLOADING = 60.0  # seconds that the end of a run waits; what is then missing is still on disk


class WandB:
    """A run in the project $WANDB_PROJECT, else `cssl`; its files go below `into`, $WANDB_DIR or the run's folder.

    All is logged again under the same id and not as a resumed run: W&B then replaces what it has of the run.
    """

    def __init__(self, records: Records, into: str | None, say: Say) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its telemetry, in threads of its own
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        folder = Path(into or os.environ.get("WANDB_DIR") or records.place.parent).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in (folder / "wandb").glob(f"offline-run-*-{records.fingerprint}"):
            shutil.rmtree(earlier)  # it holds the same steps
        offline = "WANDB_MODE" not in os.environ and not _has_key()
        quiet = {"silent": True, "console": "off", "save_code": False, "disable_git": True, "x_disable_stats": True}
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "cssl"),
                id=records.fingerprint,
                name=records.name,
                group=records.group,
                config=records.recipe,
                dir=folder,
                mode="offline" if offline else None,
                reinit="create_new",
                settings=wandb.Settings(**quiet, init_timeout=REACHING, finish_timeout=UPLOADING),
            )
        except BaseException:
            wandb.teardown()  # its threads and its process
            raise
        if offline:
            say(f"wandb has no key and stays offline. Later: wandb sync {folder}/wandb/offline-run-*")

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self.run.log({**point.values, "train/seconds": point.seconds}, step=point.step)

    def finish(self, summary: Values, step: int, state: str) -> None:  # noqa: ARG002
        import wandb

        self.run.summary.update(summary)
        self.run.finish(exit_code=0 if state == "finished" else 1)
        wandb.teardown()


def _has_key() -> bool:
    """Whether logging in needs no question."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    return False
