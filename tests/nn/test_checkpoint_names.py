"""Files of weights as their authors write them: which of it is the encoder, and which its projector."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cssl_cli.nn.checkpoint_names import Matched, match_encoder, match_projector
from cssl_cli.nn.encoder import MLP, build_encoder, materialize

WIDTH = 2
PLACES = {
    "lightly": ("0", "1", "4", "5", "6", "7"),  # Sequential(*children of torchvision's ResNet)
    "moco_cifar": ("0", "1", "3", "4", "5", "6"),  # the same without the pooling of the stem
    "lightly_cifar": ("0", "1", "2", "3", "4", "5"),  # of lightly's ResNetGenerator, without activations, too
}
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def encoder() -> State:
    network = build_encoder({"name": "resnet18", "width": WIDTH})
    return materialize(network, torch.Generator().manual_seed(0)).state_dict()


@pytest.fixture(scope="module")
def projector() -> State:
    return materialize(MLP(16, [8, 4], batch_norm=True), torch.Generator().manual_seed(0)).state_dict()


def below(prefix: str, state: State) -> State:
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def other(state: State) -> State:
    """Weights of the same names and shapes: a momentum copy."""
    return {name: tensor + 1 for name, tensor in state.items()}


def numbered(state: State, layout: str) -> State:
    places = dict(zip(("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), PLACES[layout], strict=True))
    return {name.replace(first := name.partition(".")[0], places[first], 1): tensor for name, tensor in state.items()}


def shortcuts(state: State) -> State:
    return {name.replace(".downsample.", ".shortcut."): tensor for name, tensor in state.items()}


def in_place(projector: State) -> State:
    """The projector's layers as a bare sequence."""
    return {name.removeprefix("layers."): tensor for name, tensor in projector.items()}


def in_pairs(head: State) -> State:
    """A sequence of sequences: each linear layer with its batch norm and its ReLU."""
    parts = {name: name.split(".") for name in head}
    return {f"{int(number) // 3}.{int(number) % 3}.{part}": head[name] for name, (number, part) in parts.items()}


def linear(inputs: int, outputs: int) -> State:
    return nn.Linear(inputs, outputs).state_dict()


def layouts(encoder: State, projector: State) -> dict[str, tuple[State, str, str | None]]:
    """For each author a state, the prefix of the encoder in it, and that of the projector."""
    head = in_place(projector)
    return {
        "torchvision": ({**encoder, **below("fc", linear(16, 10))}, "", None),
        "timm, without a classifier": (dict(encoder), "", None),
        "solo-learn": (
            {
                **below("backbone", encoder),
                **below("classifier", linear(16, 10)),
                **below("projector", head),
                **below("momentum_backbone", other(encoder)),
                **below("momentum_projector", other(head)),
                "queue": torch.zeros(2, 8),
            },
            "backbone.",
            "projector.",
        ),
        "lightly": (
            {
                **below("backbone", numbered(encoder, "lightly")),
                **below("projection_head.layers", head),
                **below("backbone_momentum", other(numbered(encoder, "lightly"))),
                **below("projection_head_momentum.layers", other(head)),
            },
            "backbone.",
            "projection_head.",
        ),
        "lightly's ResNetGenerator": (
            below("backbone", shortcuts(numbered(encoder, "lightly_cifar"))),
            "backbone.",
            None,
        ),
        "MoCo": (
            {
                **below("module.encoder_q", encoder),
                **below("module.encoder_q.fc", head),
                **below("module.encoder_k", other(encoder)),
                **below("module.encoder_k.fc", other(head)),
                "module.queue": torch.zeros(4, 8),
                "module.queue_ptr": torch.zeros(1),
            },
            "module.encoder_q.",
            "module.encoder_q.fc.",
        ),
        "MoCo, CIFAR-10": (
            {
                **below("encoder_q.net", numbered(encoder, "moco_cifar")),
                **below("encoder_q.net.9", linear(16, 8)),
                **below("encoder_k.net", other(numbered(encoder, "moco_cifar"))),
                "queue": torch.zeros(8, 4),
            },
            "encoder_q.net.",
            None,
        ),
        "SimSiam": (
            {
                **below("module.encoder", encoder),
                **below("module.encoder.fc", head),
                **below("module.predictor", {f"{number}.weight": torch.zeros(4, 4) for number in (0, 3)}),
            },
            "module.encoder.",
            "module.encoder.fc.",
        ),
        "Barlow Twins": (
            {
                **below("module.backbone", encoder),
                **below("module.projector", head),
                **below("module.bn", {"running_mean": torch.zeros(4), "running_var": torch.ones(4)}),
            },
            "module.backbone.",
            "module.projector.",
        ),
        "BYOL (byol-pytorch)": (
            {
                **below("net", encoder),
                **below("online_encoder.net", encoder),
                **below("online_encoder.projector", head),
                **below("target_encoder.net", other(encoder)),
                **below("online_predictor", in_place(projector)),
            },
            "net.",
            "online_encoder.projector.",
        ),
        "solo-learn up to 1.0.2": (
            {
                **below("encoder", encoder),
                **below("classifier", linear(16, 10)),
                **below("projector", head),
                **below("momentum_encoder", other(encoder)),
            },
            "encoder.",
            "projector.",
        ),
        "the paper's authors, SimCLR": (
            {
                **below("backbone", shortcuts(numbered(encoder, "lightly_cifar"))),
                **below("resnet_simclr.backbone", shortcuts(numbered(encoder, "lightly_cifar"))),
                **below("resnet_simclr.projection_head", head),
            },
            "backbone.",
            "resnet_simclr.projection_head.",
        ),
        "the paper's authors, Barlow Twins": (
            {
                **below("backbone", shortcuts(numbered(encoder, "lightly_cifar"))),
                **below("resnet_simsiam.backbone", shortcuts(numbered(encoder, "lightly_cifar"))),
                **below("resnet_simsiam.projection_mlp", in_pairs(head)),
                **below("resnet_simsiam.prediction_mlp", in_pairs(head)),
            },
            "backbone.",
            "resnet_simsiam.projection_mlp.",
        ),
        "a DataParallel of CIFAR's ResNet": (
            {**below("module", shortcuts(encoder)), **below("module.linear", linear(16, 10))},
            "module.",
            None,
        ),
    }


@pytest.mark.parametrize("author", [*layouts({}, {})])
def test_the_layout_of_each_author_is_recognised(author: str, encoder: State, projector: State) -> None:
    state, prefix, of_projector = layouts(encoder, projector)[author]
    matched = match_encoder(state, encoder)
    assert (matched.prefix, faults(matched)) == (prefix, ([], [], [], []))
    assert list(matched.state) == list(encoder)
    assert matched.without_relu == (author == "lightly's ResNetGenerator" or "paper's" in author)
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in matched.state.items())
    assert len(matched.left_out) == len(state) - len(encoder)
    found = match_projector(state, projector, [matched.prefix, *matched.same])
    assert (found and found.prefix) == of_projector
    if found:
        assert all(torch.equal(found.state[name], projector[name]) for name in found.state)
        assert {name for name in projector if "num_batches" not in name} == set(found.state)


def faults(
    matched: Matched,
) -> tuple[list[str], list[str], list[tuple[str, tuple[int, ...], tuple[int, ...]]], list[str]]:
    return matched.missing, matched.unexpected, matched.misfits, matched.alike


@pytest.mark.parametrize("author", [*layouts({}, {})])
def test_two_per_cent_that_do_not_agree_are_told(author: str, encoder: State, projector: State) -> None:
    state, prefix, _ = layouts(encoder, projector)[author]
    entries = [name for name in state if name.startswith(prefix) and not name.endswith("num_batches_tracked")]
    entries = [name for name in entries if name.count(".") > prefix.count(".") + 1][: -(-len(encoder) // 50)]
    assert entries
    renamed = {name.replace(".weight", ".wait") if name in entries else name: state[name] for name in state}
    matched = match_encoder(renamed, encoder)
    twice = author == "BYOL (byol-pytorch)" or "paper's" in author  # the encoder is in the file
    if not twice:
        assert matched.missing == [name for name in entries if name.endswith(".weight")]
        assert matched.unexpected == [name.replace(".weight", ".wait") for name in matched.missing]
    reshaped = {name: tensor[:1] if name in entries else tensor for name, tensor in state.items()}
    matched = match_encoder(reshaped, encoder)
    assert twice or len(matched.misfits) == len(entries)


def test_a_copy_that_cannot_be_told_from_the_encoder_is_not_chosen_at_random(encoder: State) -> None:
    matched = match_encoder({**below("first", encoder), **below("second", other(encoder))}, encoder)
    assert {matched.prefix, *matched.alike} == {"first.", "second."}
    matched = match_encoder({**below("encoder", encoder), **below("encoder_ema", other(encoder))}, encoder)
    assert (matched.prefix, matched.alike) == ("encoder.", [])


def test_what_only_counts_batches_may_be_missing(encoder: State) -> None:
    old = {name: tensor for name, tensor in encoder.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(encoder)
    assert faults(match_encoder(old, encoder)) == ([], [], [], [])


def test_a_projector_of_other_layers_is_none(encoder: State, projector: State) -> None:
    state = {**below("backbone", encoder), **below("projector", in_place(projector))}
    wider = materialize(MLP(16, [8, 5], batch_norm=True), torch.Generator()).state_dict()
    assert match_projector(state, wider, ["backbone."]) is None
    assert match_projector(below("backbone", encoder), projector, ["backbone."]) is None


def test_ten_layers_of_a_projector_are_in_the_order_of_their_numbers() -> None:
    layers = nn.Sequential(*[nn.Linear(4, 4) for _ in range(11)]).state_dict()
    in_order_of_names = {f"projector.{name}": layers[name] for name in sorted(layers)}
    found = match_projector(in_order_of_names, layers, [""])
    assert found is not None
    assert all(torch.equal(found.state[name], layers[name]) for name in layers)


def test_the_statistics_of_a_split_batch_norm_are_averaged_as_in_its_evaluation(encoder: State) -> None:
    parts = torch.tensor([[0.0], [1.0], [5.0]])
    split = {
        name: (parts + tensor).flatten() if name.endswith(("running_mean", "running_var")) else tensor
        for name, tensor in encoder.items()
    }
    matched = match_encoder(below("backbone", split), encoder)
    assert (faults(matched), matched.num_splits) == (([], [], [], []), 3)
    assert all(
        torch.equal(matched.state[name], tensor + 2 if name.endswith(("running_mean", "running_var")) else tensor)
        for name, tensor in encoder.items()
    )
    split["layer1.0.conv1.weight"] = torch.zeros(4, 2, 3, 3)  # an encoder of another width is none
    assert len(match_encoder(split, encoder).misfits) == 41


def test_a_file_of_a_projector_alone_has_no_encoder(encoder: State, projector: State) -> None:
    matched = match_encoder(below("projector", in_place(projector)), encoder)
    assert (matched.prefix, len(matched.missing)) == ("", 100)
    assert matched.missing[0] == "conv1.weight"
