"""What the ranks other than 0 do while it pretrains: they train along, and neither read runs nor write them."""

from __future__ import annotations

from pathlib import Path

from cssl_cli.errors import InputError
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import Recipe
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.team import Team
from cssl_cli.runs.trainer import last_step_of, make_trainer, way_of_computing


def follow(
    recipe: Recipe, *, team: Team, out: Path, device_name: str | None, data_root: str | None, until: int | None = None
) -> None:
    """Train along with rank 0 from where it stands, up to where it stops; its state is the state of all.

    The images are prepared once rank 0 has them: in the cache, where the machines share it. `InputError` unless they
    are the same, and steps are computed in the same way.
    """
    with team.explaining():
        device = choose_device(team.device_name(device_name))
        told = team.share(None)
        dataset = prepare_data(recipe, Silent(), data_root=data_root, own=[out])
        if dataset.content_key != told["content_key"]:
            raise InputError("the images here are not those of rank 0: pixels, labels or class names differ")
        trainer = make_trainer(recipe, dataset, device, ranks=team.ranks)
        if (here := way_of_computing(trainer)) != told["computes"]:
            raise InputError(
                f"this rank computes with {here}, and rank 0 with {told['computes']}",
                remedy="Train on machines of one kind, or give --device, train.precision and train.compile.",
            )
        trainer.load_state_dict(told["trainer"])
        last_step = last_step_of(trainer.plan, until)
        if trainer.step < last_step:
            next(done for done in trainer.run() if done.step == last_step)
