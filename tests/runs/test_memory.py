"""What cannot fit into memory is refused before anything is computed, and nothing that fits."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from peak_memory import PeakMemory

from cssl_cli.data import Dataset, ImageSet
from cssl_cli.errors import InputError
from cssl_cli.recipe import load_recipe
from cssl_cli.recipe.files import shipped_names
from cssl_cli.runs import memory
from cssl_cli.runs.pretrain import require_memory
from cssl_cli.runs.setup import initial_method
from tests.support.commands import Invoke

GIB = 2.0**30
METHODS = ("simclr", "barlow_twins", "moco", "simsiam", "byol", "vicreg", "t_infonce", "simple_contrastive")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.num_train", 10**12),
        ("data.num_test", 10**12),
        ("encoder.width", 4096),
        ("method.projector", "[65536, 65536]"),
        ("train.batch_size", 10**9),
        ("analyze.num_views", 10**9),
    ],
)
def test_the_field_that_takes_most_is_named(field: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 8 * GIB)
    monkeypatch.setattr(memory, "_GPU", Path("/nowhere"))
    recipe = load_recipe("simclr-shapes", [f"{field}={value}"])
    with pytest.raises(InputError, match=r"does not fit in memory: needs about [\d,]+ GiB, 8.0 are free") as error:
        memory.require_all(recipe)
    assert error.value.where == field


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (["method.queue=100000000"], "method.queue"),
        (["analyze.num_images=2000", "analyze.bootstrap=1000000"], "analyze.bootstrap"),
        (["data.num_test=1000000000", "data.size=8", "analyze.num_images=1000000000"], "data.num_test"),
    ],
)
def test_queues_and_resamples_count(overrides: list[str], field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 8 * GIB)
    monkeypatch.setattr(memory, "_GPU", Path("/nowhere"))
    with pytest.raises(InputError) as error:
        memory.require_all(load_recipe("simclr-shapes", ["method={name: moco, batch_norm_splits: 1}", *overrides]))
    assert error.value.where == field


@pytest.mark.parametrize("name", [name for name in shipped_names("recipe") if name != "simclr-folder"])
def test_every_shipped_recipe_fits_into_six_gigabytes(name: str) -> None:
    recipe = load_recipe(name)
    needs = {
        **memory.of_images(recipe),
        **memory.of_training(recipe),
        **memory.of_analysis(recipe, memory.known_test_images(recipe)),
    }
    assert all(number >= 0 for number in needs.values())
    memory.require(needs, 6 * GIB)
    memory.require(needs, None)


@pytest.mark.parametrize(
    ("encoder", "method"),
    [
        *[(encoder, method) for encoder in ("small", "resnet18", "resnet50") for method in METHODS],
        ("resnet34", "simclr"),
        ("resnet101", "simclr"),
    ],
)
@pytest.mark.parametrize("width", [16, 128])
def test_weights_are_estimated_from_below(encoder: str, method: str, width: int) -> None:
    import torch

    from cssl_cli.methods import build_method
    from cssl_cli.nn.encoder import build_encoder

    recipe = load_recipe(
        "simclr-shapes", [f"encoder={{name: {encoder}, width: {width}}}", f"method={{name: {method}}}"]
    )
    with torch.device("meta"):
        built = build_method(recipe.settings("method"), build_encoder(recipe.settings("encoder")))
    trained = sum(4 * weight.numel() for weight in built.parameters() if weight.requires_grad)
    kept = sum(4 * entry.numel() for entry in built.state_dict().values())
    needed = kept + 3 * trained  # the gradient and two moments of each that is trained
    needs = {field: number for field, number in memory.of_training(recipe).items() if field != "train.batch_size"}
    assert 0.8 * needed < sum(needs.values()) <= needed


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize(
    ("encoder", "size"),
    [
        ("small", 16),
        ("resnet18", 16),
        ("resnet34", 16),
        ("resnet50", 16),
        ("resnet101", 32),  # gradients take less beside more pixels
        ("resnet18, stem: imagenet", 64),
        ("resnet50, stem: imagenet", 64),
    ],
)
def test_activations_are_estimated_from_below(encoder: str, size: int, again: bool) -> None:
    settings = [f"encoder={{name: {encoder}, width: 4}}", f"data.size={size}", "train.batch_size=8"]
    settings.append(f"train.checkpoint_activations={str(again).lower()}")
    recipe = load_recipe("simclr-shapes", settings)
    method = initial_method(recipe).train()
    views = torch.ones(2, 8, 3, size, size).contiguous(memory_format=torch.channels_last_3d)
    with PeakMemory() as memory_taken:
        method(*views)["loss"].backward()
    gradients = sum(weight.nbytes for weight in method.parameters())
    found = memory_taken.peak - gradients - views.nbytes  # laid side by side
    needs = memory.of_training(recipe)
    # Two views of a batch, and what is kept of them in float32, twice as much as in bfloat16.
    kept = needs["train.batch_size"] - views.nbytes
    assert 0 < 2 * kept <= found < 5 * 2 * kept
    in_parts = memory.of_training(load_recipe("simclr-shapes", [*settings, "train.micro_batch=4"]))
    assert 0 < 2 * in_parts["train.micro_batch"] <= found


def test_what_is_not_known_of_a_librarys_network_is_not_refused() -> None:
    recipe = load_recipe("simclr-shapes", ["encoder={name: torchvision, model: vit_b_16}", "train.batch_size=4096"])
    needs = {**memory.of_training(recipe, 224), **memory.of_analysis(recipe, 2000)}
    assert needs["encoder.model"] == 0
    views = 2 * 4096 * 4 * 3 * recipe.data.size**2
    assert sum(needs.values()) == pytest.approx(views, rel=0.1)


def test_a_librarys_network_that_does_not_fit_is_refused_once_the_images_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = load_recipe("simclr-shapes", ["encoder={name: torchvision, model: resnet18}", "train.batch_size=2048"])
    part = ImageSet(torch.zeros(2048, 3, 64, 64, dtype=torch.uint8), None)
    dataset = Dataset("random", (), part, None, None, (0.5,) * 3, (0.2,) * 3, "random", 64)
    monkeypatch.setattr(memory, "free_memory", lambda: 1.0 * GIB)
    require_memory(recipe, torch.device("cpu"), None)
    with pytest.raises(InputError, match="does not fit in memory") as caught:
        require_memory(recipe, torch.device("cpu"), dataset)
    assert caught.value.where == "train.batch_size"


def test_the_remedy_names_what_spares_memory() -> None:
    def refusal(*overrides: str) -> InputError:
        with pytest.raises(InputError) as error:
            memory.require(memory.of_training(load_recipe("simclr-shapes", list(overrides)), 224), 80 * GIB)
        return error.value

    large = ["encoder={name: resnet50}", "train.batch_size=4096", "data={name: folder, root: here, size: 224}"]
    plain = refusal(*large)
    assert plain.where == "train.batch_size"
    assert plain.remedy is not None
    assert "train.micro_batch" in plain.remedy
    assert "train.checkpoint_activations=true" in plain.remedy
    again = refusal(*large, "train.micro_batch=4096")
    assert again.where == "train.micro_batch"
    assert again.remedy == (
        "Give a smaller train.micro_batch or train.checkpoint_activations=true, or use a machine with more memory."
    )
    needs = memory.of_training(load_recipe("simclr-shapes", [*large, "train.checkpoint_activations=true"]), 224)
    with pytest.raises(InputError) as spared:
        memory.require(needs, GIB, checkpointed=True)
    assert spared.value.remedy == (
        "Give a smaller train.batch_size or train.micro_batch, of which any batch is made, or use a machine with more "
        "memory."
    )
    memory.require(memory.of_training(load_recipe("simclr-shapes", [*large, "train.micro_batch=64"])), 40 * GIB)


def test_a_control_group_limits_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    for group, limit, used, of_files in ((inner, "max", 5000, 0), (tmp_path / "job", "10000", 7000, 2000)):
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 1\nfile {of_files}\nfile_mapped 9\n")
    monkeypatch.setattr(
        memory, "_CGROUPS", (memory._Groups("^(nothing)$", inner, "memory.max", "memory.current", r"^file (\d+)$"),)
    )
    everything = memory.free_memory()
    assert everything is None or everything > 10_000  # no limit of its own, and those around are not looked at
    groups = memory._Groups("^(nothing)$", tmp_path / "job", "memory.max", "memory.current", r"^file (\d+)$")
    assert groups.left() == [5000.0]


def test_the_dry_run_says_so(invoke: Invoke) -> None:
    refused = invoke("pretrain", "simclr-shapes", "data.num_train=1000000000000", "--dry-run")
    assert refused.code == 2
    assert "data.num_train: does not fit in memory: needs about 2,861," in refused.stderr
    assert refused.stdout == ""


def test_so_do_training_and_drawing(invoke: Invoke, tmp_path: Path) -> None:
    for command in (["pretrain"], ["analyze"], ["recipes", "--views", "x.png"]):
        refused = invoke(command[0], "simclr-shapes", "data.num_train=1000000000000", *command[1:], "--device", "cpu")
        assert refused.code == 2
        assert "does not fit in memory" in refused.stderr
    assert not any(path.is_dir() and any(path.iterdir()) for path in tmp_path.iterdir())


@pytest.mark.parametrize(("kept", "fits"), [(40 * GIB, True), (0, False)])
def test_memory_that_an_earlier_run_gave_back_is_free(kept: float, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 20 * GIB + kept)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 20 * GIB)
    recipe = load_recipe("simclr-shapes")
    with nullcontext() if fits else pytest.raises(InputError, match="does not fit in memory"):
        require_memory(recipe, torch.device("cuda"), None)
