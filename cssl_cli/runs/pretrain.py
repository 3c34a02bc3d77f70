"""Pretraining: a recipe in, a run directory with a trained encoder out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cssl_cli.data import Dataset
from cssl_cli.errors import CsslError, DamagedError, InputError, Interrupted, RunError, escaped_text, shown_path
from cssl_cli.host.files import require_creatable
from cssl_cli.host.progress import Reporter
from cssl_cli.host.signals import Pending, Stopped, deferred_signals
from cssl_cli.nn.ranks import ALONE
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.runs import memory
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.environment import enter_compiled, enter_environment, environment
from cssl_cli.runs.finishing import finish, take_over
from cssl_cli.runs.images import ELSEWHERE, channels_of, images_of_run
from cssl_cli.runs.run_dir import (
    ANALYSIS,
    CHECKPOINT,
    ENCODER,
    ENVIRONMENT,
    EPOCH_KNN,
    METRICS,
    PROBE,
    PROJECTOR,
    RECIPE,
    STATUS,
    TRACE,
    RunDir,
)
from cssl_cli.runs.setup import make_augmentation, memory_of_library, require_encoder
from cssl_cli.runs.team import Team
from cssl_cli.runs.trainer import (
    compiles_with,
    last_step_of,
    make_trainer,
    plan_of,
    require_shares,
    way_of_computing,
)
from cssl_cli.runs.training_trace import Recorder, make_recorders
from cssl_cli.runs.views import choose
from cssl_cli.runs.weights_source import EXACTLY, Allowances, starting_weights
from cssl_cli.train.allocator import keep_freed_memory
from cssl_cli.train.loop import EpochRecord, Plan, StepDone, Trainer


def pretrain(
    recipe: Recipe,
    *,
    out: Path,
    reporter: Reporter,
    device_name: str | None = None,
    restart: bool = False,
    dataset: Dataset | None = None,
    data_root: str | None = None,
    allowed: Allowances = EXACTLY,
    until: int | None = None,
    recorded: Callable[[RunDir], object] = lambda _: None,
    team: Team | None = None,
) -> RunDir:
    """Train the recipe's encoder into its run directory under `out`, resuming from its checkpoint if there is one.

    A recipe of 0 epochs imports the encoder of `encoder.weights` instead; `allowed` is what need not agree in that
    file. A finished run is left as it is. `restart` first discards what the directory holds. A signal to end saves a
    checkpoint and raises `Interrupted`. `dataset` may be given if already loaded; `data_root` is where the images are
    now: the recipe's data.root still identifies the run. `recorded` is called when the records of an epoch
    are on disk; it must not raise. `until` is an epoch after which to stop with a checkpoint, as if interrupted there;
    the schedule is that of the whole run all the same. Of a `team`, this is rank 0 (`following.follow`).
    """
    team = team or Team(ALONE)
    ranks = team.ranks
    device = choose_device(team.device_name(device_name))
    run = RunDir.at(out, name=recipe.name, fingerprint=recipe.fingerprint)
    trains, weights = recipe.train.epochs != 0, None
    if restart or not _is_finished(run):
        # Before anything is created under `out`: missing images leave no run behind.
        require_creatable(out, "Choose another folder with --out DIR.")
        if trains:
            require_shares(recipe.train.batch_size, recipe.train.micro_batch, ranks.size)
            require_memory(recipe, device, dataset, ranks.size)
        begins = restart or not run.file(CHECKPOINT).exists()
        channels = channels_of(recipe) if dataset is None else dataset.channels
        if begins and channels is not None:  # before images are decoded
            weights = starting_weights(recipe, allowed, channels)
        dataset = dataset or images_of_run(run, recipe, reporter, data_root=data_root, own=[out])
        if begins and channels is None:
            weights = starting_weights(recipe, allowed, dataset.channels)
        make_augmentation(recipe, dataset)
        if trains:
            compiles_with(recipe, plan_of(recipe, len(dataset.pretrain)), device, ranks)
        require_encoder(recipe, dataset)
        _require_analysis(recipe, dataset)
    run.create(recipe.to_yaml())
    if not restart and _is_finished(run) and not run.is_writable():
        check_recipe(run, recipe)
        stored = load_recipe(str(run.file(RECIPE)))  # not compared as text: earlier versions wrote fewer fields
        if (stored.probe, stored.analyze) == (recipe.probe, recipe.analyze):
            reporter.say(f"{shown_path(run.path)} is finished already")
            return run
    with run.locked():
        if restart:
            results = [path.name for name in (PROBE, ANALYSIS) for path in run.results(name)]
            results += run.transfers()
            run.remove(STATUS, CHECKPOINT, METRICS, TRACE, EPOCH_KNN, ENCODER, PROJECTOR, ENVIRONMENT, *results)
            run.write_recipe(recipe.to_yaml())
        check_recipe(run, recipe)
        _enter_recipe(run, recipe, reporter)
        if _is_finished(run, reporter):
            reporter.say(f"{shown_path(run.path)} is finished already")
            return run
        dataset = dataset or images_of_run(run, recipe, reporter, data_root=data_root, own=[out])
        if not trains:
            check_images(run, recipe, dataset, data_root)
            weights = weights or starting_weights(recipe, allowed, dataset.channels)
            assert weights is not None, "a recipe without training has weights"
            take_over(run, recipe, weights, dataset, device, reporter, data_root)
            return run
        require_memory(recipe, device, dataset, ranks.size)  # what a library's encoder takes is known now
        trainer = make_trainer(recipe, dataset, device, weights=weights, notice=reporter.say, ranks=ranks)
        check_images(run, recipe, dataset, data_root)
        records = _resume(run, recipe, trainer, reporter)  # before a new environment describes its files
        if not ranks.alone:
            state, computes = trainer.state_dict(), way_of_computing(trainer)
            team.share({"content_key": dataset.content_key, "computes": computes, "trainer": state})
        here = environment(device, trainer.precision, compiled=trainer.training_step.compiled, ranks=ranks.size)
        enter_environment(run, recipe, dataset, here, reporter, data_root)
        recorders = make_recorders(recipe, dataset, device, reporter)
        run.write_status("running", step=trainer.step, num_steps=trainer.plan.num_steps)

        def failed(what: str, **told: str | None) -> None:
            run.write_status("failed", step=trainer.step, num_steps=trainer.plan.num_steps, error=what, **told)

        try:
            with deferred_signals() as pending, team.explaining(failed):
                _train(run, recipe, trainer, recorders, records, pending, reporter, recorded, until)
                finished = trainer.step == trainer.plan.num_steps
                if finished:
                    finish(run, recipe, trainer, dataset)
        except RunError as error:
            if run.file(CHECKPOINT).exists():
                error.remedy = f"The last good checkpoint is kept. {error.remedy or ''}".rstrip()
            told = {"where": error.where, "remedy": error.remedy}
            told = {name: None if text is None else escaped_text(text) for name, text in told.items()}
            with suppress(CsslError):  # a full disk may be the cause
                failed(escaped_text(error.what), **told)
            error.where = error.where or str(run.path)
            raise
        except Stopped as stopped:  # in the first step, or a second signal
            remedy = "The same command goes on from the last checkpoint."
            raise Interrupted(stopped.number, where=str(run.path), remedy=remedy) from None
        if pending:
            remedy = (
                "Pretraining had just finished." if finished else "It is saved; the same command goes on from there."
            )
            raise Interrupted(pending[0], where=str(run.path), remedy=remedy)
    return run


def _is_finished(run: RunDir, reporter: Reporter | None = None) -> bool:
    """Whether nothing is left to train; if the status is damaged, the checkpoint decides."""
    try:
        return run.finished
    except DamagedError as error:
        if reporter is not None:
            reporter.say(f"{error.where}: {error.what}; going on from the checkpoint")
        return False


def _enter_recipe(run: RunDir, recipe: Recipe, reporter: Reporter) -> None:
    """Write recipe.yaml if it differs (other measurement settings) or is damaged."""
    text = recipe.to_yaml()
    try:
        if run.recipe_is(text):
            return
    except DamagedError as error:
        reporter.say(f"{error.where}: {error.what}, or was edited; written again")
    run.write_recipe(text)


def require_memory(recipe: Recipe, device: torch.device, dataset: Dataset | None, ranks: int = 1) -> None:
    """`InputError` if images and training do not fit into the memory of this machine and of the device.

    Of several `ranks`, each has its part of a batch on a GPU of its own; how many share one machine is not known.
    """
    of_rank = recipe
    if ranks > 1 and device.type == "cuda":
        of_rank = recipe.model_copy(
            update={"train": recipe.train.model_copy(update={"batch_size": recipe.train.batch_size // ranks})}
        )
    images = memory.of_images(recipe) if dataset is None else {}
    kind: dict[str, Any] = {}
    if dataset is not None:
        kind = {"image_size": dataset.image_size, "channels": dataset.channels}
        kind["measured"] = memory_of_library(recipe, dataset)
    training, checkpointed = memory.of_training(of_rank, **kind), recipe.train.checkpoint_activations
    if device.type == "cuda":
        # torch keeps the memory freed by an earlier run in this process, for the next one.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        memory.require(training, torch.cuda.mem_get_info(device)[0] + kept, checkpointed=checkpointed)
        training = {}
    memory.require({**images, **training}, memory.free_memory(), checkpointed=checkpointed)


def _require_analysis(recipe: Recipe, dataset: Dataset) -> None:
    """Report what the analysis cannot do before the training rather than after it."""
    measured = dataset.test or dataset.pretrain
    memory.require(memory.of_analysis(recipe, len(measured)), memory.free_memory())
    choose(measured.labels, len(measured), dataset.class_names, recipe.settings("analyze"))


def check_recipe(run: RunDir, recipe: Recipe) -> None:
    """`InputError` unless the run directory belongs to a recipe with the same fingerprint."""
    begun_with = (run.environment() or {}).get("fingerprint", recipe.fingerprint)
    if begun_with != recipe.fingerprint:
        raise InputError(
            f"the directory holds a run of another recipe (fingerprint {begun_with}, not {recipe.fingerprint})",
            where=str(run.path),
            remedy="Give another --out DIR, or --restart to discard what it holds.",
        )


def check_images(run: RunDir, recipe: Recipe, dataset: Dataset, data_root: str | None = None) -> None:
    """`InputError` unless the images are those that the run began with, wherever they are now."""
    before = run.environment()
    if before and before["content_key"] != dataset.content_key:
        root = data_root or getattr(recipe.data, "root", None)
        remedy = "Restore them, or add --restart to `cssl pretrain` to train again from the start."
        raise InputError(
            f"the images{f' in {root}' if root else ''} are not those that this run began with: "
            "pixels, labels or class names differ",
            where=str(run.path),
            remedy=f"{remedy} {ELSEWHERE}" if root else remedy,
        )


def _resume(run: RunDir, recipe: Recipe, trainer: Trainer, reporter: Reporter) -> dict[str, list[dict[str, Any]]]:
    """Load the run's checkpoint, if any, into the trainer; returns metrics and trace up to it."""
    checkpoint = run.load_checkpoint()
    if checkpoint is None:
        return {METRICS: [], TRACE: [], EPOCH_KNN: []}
    run.require_checkpoint(checkpoint, fingerprint=recipe.fingerprint, num_steps=trainer.plan.num_steps)
    try:
        trainer.load_state_dict(checkpoint["trainer"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise run.damaged(CHECKPOINT, f"it does not fit the recipe ({type(error).__name__}: {reason})") from error
    reporter.say(f"going on from step {trainer.step} of {trainer.plan.num_steps} in {shown_path(run.path)}")
    return {
        METRICS: checkpoint["metrics"],
        TRACE: checkpoint.get("trace", []),
        EPOCH_KNN: checkpoint.get("epoch_knn", []),
    }


def _train(
    run: RunDir,
    recipe: Recipe,
    trainer: Trainer,
    recorders: Sequence[Recorder],
    records: dict[str, list[dict[str, Any]]],
    pending: Pending,
    reporter: Reporter,
    recorded: Callable[[RunDir], object],
    until: int | None,
) -> None:
    """Train to the end of the plan, or of the epoch `until`."""
    plan = trainer.plan
    last_step = last_step_of(plan, until)

    def save() -> float:
        run.save_checkpoint(
            {
                "fingerprint": recipe.fingerprint,
                "trainer": trainer.state_dict(),
                "metrics": records[METRICS],
                "trace": records[TRACE],
                "epoch_knn": records[EPOCH_KNN],
            }
        )
        return time.monotonic()

    def interrupted() -> Interrupted:
        run.write_status("interrupted", step=trainer.step, num_steps=plan.num_steps)
        return Interrupted(
            pending[0],
            where=str(run.path),
            remedy=f"Saved at step {trainer.step} of {plan.num_steps}; the same command goes on from there.",
        )

    def measure(epoch: int) -> None:
        """Measure what is due at this step, unless it was measured before an interruption."""
        for recorder in recorders:
            measured = records[recorder.file]
            if measured and measured[-1]["step"] == trainer.step:
                continue
            if recorder.due(epoch, last=trainer.step == plan.num_steps):
                with pending.at_once():
                    record = recorder.measure(trainer.method.encoder, epoch=epoch, step=trainer.step)
                measured.append(record)
                run.write_records(recorder.file, measured)

    def measure_or_save(epoch: int) -> None:
        try:
            measure(epoch)
            if not pending:  # else the next process tells of it
                with pending.at_once():
                    recorded(run)
        except Stopped:
            if trainer.step == 0:
                raise
            save()
            raise interrupted() from None

    last = records[METRICS][-1] if records[METRICS] else {"epoch": 0, "step": 0}
    if trainer.step == last["step"]:
        measure_or_save(last["epoch"])
    if trainer.step >= last_step and trainer.step < plan.num_steps:  # it came further before
        for recorder in recorders:
            if records[recorder.file]:
                run.write_records(recorder.file, records[recorder.file])
        run.write_status("interrupted", step=trainer.step, num_steps=plan.num_steps)
        return
    saved_at = time.monotonic()
    compiled = trainer.training_step.compiled
    for done, progress in enumerate(_first_at_once(trainer.run(), pending), start=1):
        if trainer.training_step.compiled != compiled:
            compiled = trainer.training_step.compiled
            enter_compiled(run, compiled=compiled)
        if done == 1 and trainer.device.type == "cpu":
            keep_freed_memory()  # once it is clear what a step needs
        detail = "" if progress.record is None else _describe(progress.record, plan)
        reporter.advance("pretrain", progress.step, last_step, detail)
        if progress.ends_epoch and progress.record is not None:
            records[METRICS].append(asdict(progress.record))
            run.write_records(METRICS, records[METRICS])
            measure_or_save(progress.record.epoch)
        due = time.monotonic() - saved_at >= 60 * recipe.train.checkpoint_minutes
        # Of several ranks, all look at the same step, and then know whose number was the first.
        due = due and (trainer.ranks.alone or trainer.is_finite())
        if pending or due or progress.step == last_step:
            saved_at = save()
        if pending and progress.step < plan.num_steps:
            raise interrupted()
        if progress.step == last_step < plan.num_steps:
            run.write_status("interrupted", step=trainer.step, num_steps=plan.num_steps)
            return


def _first_at_once(steps: Iterator[StepDone], pending: Pending) -> Iterator[StepDone]:
    """Until the first step is done, signals end the run at once: nothing to save yet, and compiling takes a while."""
    with pending.at_once():
        first = next(steps, None)
    if first is not None:
        yield first
        yield from steps


def _describe(record: EpochRecord, plan: Plan) -> str:
    """The main numbers first: a narrow terminal cuts off the end."""
    parts = ", ".join(f"{name} {value:.3f}" for name, value in record.terms.items() if name != "loss")
    return (
        f"epoch {record.epoch}/{plan.num_epochs}  loss {record.terms['loss']:.3f}  lr {record.learning_rate:.2g}  "
        f"{record.images_per_second:,.0f} images/s  ({parts})"
    )
