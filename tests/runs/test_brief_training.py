"""Brief training: what is trained, how right answers are counted, and how noise between sets is judged."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from cssl_cli.data.image_set import ImageSet
from cssl_cli.errors import InputError, RunError
from cssl_cli.features import patches
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.report.rank import show_ranking
from cssl_cli.runs import brief_training
from cssl_cli.runs.brief_training import Accuracies, BriefTraining
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.rank import Candidate, _training, rank
from cssl_cli.theory.estimate import Sample
from tests.support.commands import TINY_RECIPE, Invoke

CPU = torch.device("cpu")
NONE = "augment={crop: null, flip: null, jitter: null, gray: null, blur: null}"


@pytest.fixture(autouse=True)
def a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brief_training, "STEPS", 12)
    monkeypatch.setattr(brief_training, "WARMUP_STEPS", 2)
    monkeypatch.setattr(patches, "NUM_FILTERS", 6)


@pytest.fixture
def recipe(tmp_path: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    return lambda *overrides: load_recipe(str(path), overrides)


def coloured(count: int, side: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of two colours, one a class, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 60, (count, 3, side, side), generator=generator)
    base = torch.tensor([[180, 60, 30], [30, 60, 180]])[labels][:, :, None, None]
    return (base + noise).byte(), labels


def training(images: torch.Tensor, labels: torch.Tensor, **changes) -> BriefTraining:
    of_images = BriefTraining(
        brief_training._averaged(images, images.shape[-1]),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        labelled=torch.arange(len(labels)),
        labels=labels,
        num_classes=2,
        original_side=images.shape[-1],
        seeds=(0, 1),
        device=CPU,
    )
    return replace(of_images, **changes)


# ---------------------------------------------------------------------- training
def test_classes_that_differ_are_told_apart_and_labels_at_random_are_not(recipe) -> None:
    images, labels = coloured(80, 16)
    of_flips = recipe(NONE, "augment.flip={}")
    assert training(images, labels).right(of_flips, "flips").double().mean() > 0.95
    shuffled = labels[torch.randperm(80, generator=torch.Generator().manual_seed(3))]
    assert abs(training(images, shuffled).right(of_flips, "flips").double().mean() - 0.5) < 0.2


def test_it_trains_with_the_augmentation_and_the_seed(recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of the same images differ between sets and between seeds, and repeat bit for bit."""
    seen: list[torch.Tensor] = []

    def keep(self: BriefTraining, features: torch.Tensor) -> torch.Tensor:
        seen.append(features)
        return torch.zeros(len(features), dtype=torch.int64)

    monkeypatch.setattr(BriefTraining, "_classified", keep)
    of_images = training(*coloured(40, 16))
    of_images.right(recipe(NONE, "augment.flip={}"), "flip")
    of_images.right(recipe(NONE, "augment.crop={}"), "crop")
    of_images.right(recipe(NONE, "augment.flip={}"), "flip")
    flip_0, flip_1, crop_0, _, again_0, again_1 = seen
    assert torch.equal(flip_0, again_0)
    assert torch.equal(flip_1, again_1)
    assert not torch.allclose(flip_0, flip_1, rtol=1e-3)
    assert not torch.allclose(flip_0, crop_0, rtol=1e-3)


def test_neighbours_are_of_the_other_half() -> None:
    """With each image twice under one label of its own, a copy in the same half would make every answer right."""
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 2
    of_images = training(torch.zeros(40, 3, 16, 16, dtype=torch.uint8), labels)
    order = torch.randperm(40, generator=brief_training.stream(0, "brief training/halves"))
    halves = order.chunk(2)
    features[halves[0]] = features[halves[0]].abs() * torch.where(labels[halves[0]] == 0, 1, -1)[:, None]
    features[halves[1]] = features[halves[1]].abs() * torch.where(labels[halves[1]] == 1, 1, -1)[:, None]
    assert (of_images._classified(features) != labels).all()


def test_larger_images_are_averaged_and_their_blur_with_them(recipe) -> None:
    images = torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32).remainder(251).byte()
    small = training(images, torch.tensor([0, 1]))
    by_hand = images.double().unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2))
    assert (small.images.double() - by_hand).abs().max() <= 0.5
    blurred = recipe(NONE, "augment.blur={p: 1, sigma: [1.0, 3.0], kernel_size: 9}").settings("augment")
    assert small._augmentation(blurred).operations["blur"].sigma == (0.5, 1.5)
    assert small._augmentation(blurred).operations["blur"].radius == 2
    widest = recipe(NONE, "augment.blur={p: 1, kernel_size: 63}").settings("augment")
    assert small._augmentation(widest).operations["blur"].radius == 15  # no wider kernel fits 16 pixels
    same = replace(small, original_side=16)
    assert same._augmentation(blurred).operations["blur"].sigma == (1.0, 3.0)


# ---------------------------------------------------------------------- noise
def simulated(num_sets: int, seeds: int, images: int, generator: torch.Generator, *, seed_noise: float) -> torch.Tensor:
    """Right answers (C, S, L) of sets that are equally good: images differ in how hard they are, trainings in skill."""
    hard = torch.randn(images, generator=generator)
    taste = 0.7 * torch.randn(num_sets, 1, images, generator=generator)  # an image may be easier for a set
    skill = seed_noise * torch.randn(num_sets, seeds, 1, generator=generator)
    chance = torch.sigmoid(-0.5 + hard + taste + skill)
    return torch.rand(num_sets, seeds, images, generator=generator) < chance


@pytest.mark.parametrize(("num_sets", "seeds"), [(2, 2), (6, 2), (3, 5)])
def test_sets_that_are_equally_good_are_told_apart_in_at_most_five_per_cent(num_sets: int, seeds: int) -> None:
    generator = torch.Generator().manual_seed(num_sets + seeds)
    p, repetitions = [], 600
    for _ in range(repetitions):
        right = simulated(num_sets, seeds, 300, generator, seed_noise=0.15)
        p.append(Accuracies({"a": right[0], "b": right[1], **dict(enumerate(right[2:]))}).difference("a", "b")["p"])
    rejected = sum(one <= 0.05 for one in p) / repetitions
    assert rejected <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)
    assert rejected >= 0.005  # a test that never rejects holds its level too


def test_a_set_that_is_better_is_told_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    right = simulated(6, 2, 4000, generator, seed_noise=0.03)
    better = right[0] | (torch.rand(right[0].shape, generator=generator) < 0.1)
    told = Accuracies({"a": better, **{f"{k}": one for k, one in enumerate(right[1:])}}).difference("a", "0")
    assert told["difference"] > 0
    assert told["p"] < 1e-3


def test_the_interval_covers_the_accuracy_over_seeds_and_images() -> None:
    generator = torch.Generator().manual_seed(5)
    normal = torch.randn(200_000, 3, generator=generator)
    truth = torch.sigmoid(-0.5 + normal @ torch.tensor([1.0, 0.7, 0.2])).mean().item()
    inside = 0
    for _ in range(400):
        right = simulated(5, 2, 300, generator, seed_noise=0.2)
        low, high = Accuracies({f"{k}": one for k, one in enumerate(right)}).estimate("0", Sample(300, 1)).interval
        inside += low <= truth <= high
    assert 0.92 <= inside / 400 <= 1.0


def by_neighbours(features: torch.Tensor, labels: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
    """Right answers (R, L) by a vote of the five nearest of the other half, for features (R, L, D)."""
    distances = torch.cdist(features, features).masked_fill(half[:, None] == half, torch.inf)
    votes = torch.nn.functional.one_hot(labels[distances.topk(5, largest=False).indices]).sum(dim=2)
    return votes.argmax(dim=-1) == labels


@pytest.mark.parametrize("of_differences", [False, True])
def test_the_error_counts_images_as_neighbours_too(of_differences: bool) -> None:
    """Over draws of the images, the squared error is on average the variance of the accuracy, or of a difference."""
    generator, draws, labels = torch.Generator().manual_seed(2), 300, torch.arange(80) % 8
    means, half = torch.randn(8, 6, generator=generator), torch.arange(80) // 8 % 2

    def noise(scale: float, *shape: int) -> torch.Tensor:
        return scale * torch.randn(draws, *shape, generator=generator)

    images, right = means[labels] + noise(1.0, 80, 6), []
    for _ in range(4):
        of_set = images + noise(0.7, 80, 6)
        trained = [of_set @ (torch.eye(6) + noise(0.15, 6, 6)) + noise(0.2, 80, 6) for _ in range(2)]
        right.append(torch.stack([by_neighbours(features, labels, half) for features in trained], dim=1))
    values, squares = [], []
    for of_draw in zip(*right, strict=True):
        accuracies = Accuracies(dict(zip("abcd", of_draw, strict=True)))
        if of_differences:
            told = accuracies.difference("a", "b")
            values.append(told["difference"])
            squares.append(told["error"] ** 2)
        else:
            values.append(of_draw[0].double().mean().item())
            squares.append(accuracies._error(accuracies.right["a"], trainings=1)[0] ** 2)
    assert 0.9 < np.mean(squares) / np.var(values, ddof=1) < 1.25


def test_by_hand() -> None:
    """Two sets, two seeds, four images: the parts of seeds and images, and Satterthwaite's degrees of freedom."""
    a = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()
    b = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0]]).bool()
    told = Accuracies({"a": a, "b": b}).difference("a", "b")
    seeds = 2 * (2 * 0.125**2 / 2) / 2
    images = 2 * (np.var([0, 1, 0.5, 0], ddof=1) - 0.5 / 4 / 2) / 4  # as classified ones and as neighbours
    degrees = (seeds + images) ** 2 / (seeds**2 / 2 + images**2 / 3)
    assert told["difference"] == pytest.approx(0.375)
    assert told["error"] == pytest.approx(math.sqrt(seeds + images))
    assert told["p"] == pytest.approx(2 * stats.t.sf(0.375 / math.sqrt(seeds + images), degrees))


# ---------------------------------------------------------------------- in a ranking
def test_the_accuracy_orders_the_rows_and_their_differences(recipe) -> None:
    given = [Candidate(name, recipe(NONE, f"augment.{name}={{}}")) for name in ("flip", "jitter", "gray")]
    result = rank(given, reporter=Silent(), num_images=160, train_seeds=2)
    values = [row["brief_knn"]["value"] for row in result["rows"]]
    assert values == sorted(values, reverse=True)
    assert result["train_seeds"] == 2
    shares = {row["row"]: row["share"]["value"] for row in result["rows"]}
    without = rank(given, reporter=Silent(), num_images=160)
    assert shares == {row["row"]: row["share"]["value"] for row in without["rows"]}
    for entry in result["differences"]:
        of = {row["row"]: row["brief_knn"]["value"] for row in result["rows"]}
        assert entry["difference"] == pytest.approx(of[entry["better"]] - of[entry["worse"]])


def test_with_few_labels_the_images_that_have_them_are_classified(recipe) -> None:
    result = rank([Candidate("a", recipe())], reporter=Silent(), num_images=160, labels_per_class=3, train_seeds=2)
    assert result["rows"][0]["brief_knn"]["num_images"] == 3 * len(result["class_names"])


def test_training_needs_labels(recipe, tmp_path: Path) -> None:
    from tests.runs.test_rank import unlabelled

    unlabelled(tmp_path / "photos", 60)
    of_folder = recipe(f"data={{name: folder, root: {tmp_path / 'photos'}, size: 16}}")
    with pytest.raises(InputError, match=r"no labels"):
        rank([Candidate("a", of_folder)], reporter=Silent(), num_images=60, train_seeds=2)


def test_images_of_one_class_are_no_judge(recipe) -> None:
    """Every encoder would classify all of them."""
    one_class = replace(
        prepare_data(recipe(), Silent()), train=ImageSet(*coloured(60, 16)[:1], torch.zeros(60, dtype=torch.int64))
    )
    with pytest.raises(InputError, match=r"--train: images of a single class"):
        _training(one_class, one_class.train, None, 2, CPU)


def test_training_that_fails_names_the_set_and_what_the_command_has_to_offer(recipe, monkeypatch) -> None:
    """No rate that could be lowered, as in pretraining."""
    monkeypatch.setitem(brief_training.OPTIM, "lr", 1e30)
    with pytest.raises(RunError, match=r"brief training failed: .* at step \d+") as failed:
        rank([Candidate("bright", recipe())], reporter=Silent(), num_images=160, train_seeds=2)
    assert failed.value.where == "bright"
    assert failed.value.remedy == brief_training.REMEDY
    assert "--train" in brief_training.REMEDY


def test_names_are_whole_in_eighty_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    number = {"value": 0.3, "interval": [0.25, 0.35]}
    name = "simclr-crop-jitter-gray"
    row = {"row": name, "same": [], "negative_control": False}
    row |= dict.fromkeys(("share", "shared", "about_class", "brief_knn"), number)
    facts = {"num_images": 4000, "num_views": 2, "class_names": ["a", "b"], "labels_per_class": None}
    show_ranking({**facts, "train_seeds": 2, "rows": [row], "differences": []}, as_json=False)
    assert re.search(rf"^1 +{name} +30\.0", capsys.readouterr().out, re.MULTILINE)


def test_the_command_shows_accuracy_and_refuses_to_search_with_it(tiny_recipe: Path, invoke: Invoke) -> None:
    shown = invoke("rank", tiny_recipe, "--images", "160", "--train", "2")
    assert shown.code == 0
    assert "k-NN, %" in shown.stdout
    assert "mean over 2 seeds" in " ".join(shown.stdout.split())
    of_few = invoke("rank", tiny_recipe, "--images", "160", "--train", "2", "--labels", "4")
    assert "accuracy on the images with these labels, clean" in " ".join(of_few.stdout.split())
    refused = invoke("rank", tiny_recipe, "--train", "2", "--optimise", "augment.jitter.strength")
    assert refused.code == 2
    assert "--train" in refused.stderr
