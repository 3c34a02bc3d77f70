"""Files of features: read as they were written, never unpickled, and refused with a sentence where they are damaged."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors

from cssl_cli.errors import InputError
from cssl_cli.features.arrays import FeatureArrays
from cssl_cli.features.files import read_features, write_features

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((6, 3, 4)).astype(np.float32)
LABELS = np.array([0, 0, 1, 1, 2, 2])
GIB = 2.0**30


def read(path: Path, *, training: bool = False, largest: float | None = GIB) -> tuple[FeatureArrays, list[str]]:
    told: list[str] = []
    return read_features(path, training=training, largest=largest, notice=told.append), told


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as refused:
        read(path, **options)
    assert refused.value.where == str(path)
    return str(refused.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "f.npz"


# ---------------------------------------------------------------------- what is read
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_as_numpy_writes_it(path: Path, save: Any) -> None:
    save(path, features=FEATURES, labels=LABELS.astype(np.uint8))
    found, told = read(path)
    assert np.array_equal(found.features.numpy(), FEATURES)
    assert found.labels.tolist() == LABELS.tolist()
    assert told == []


def test_arrays_in_fortran_order(path: Path) -> None:
    np.savez(path, features=np.asfortranarray(FEATURES))
    found = read(path)[0].features
    assert np.array_equal(found.numpy(), FEATURES)
    assert found.is_contiguous()  # or sums over it would be rounded in another order


def test_the_content_says_which_format_a_file_is_of(tmp_path: Path) -> None:
    save_arrays({"features": FEATURES}, tmp_path / "f.npz")
    np.savez(tmp_path / "f", features=FEATURES)
    (tmp_path / "g.safetensors").write_bytes((tmp_path / "f.npz").read_bytes())
    for name in ("f.npz", "g.safetensors"):
        assert np.array_equal(read(tmp_path / name)[0].features.numpy(), FEATURES)


def test_a_safetensors_file_with_names_in_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    tensors = {"features": torch.from_numpy(FEATURES).bfloat16(), "labels": torch.from_numpy(LABELS).to(torch.uint8)}
    save_tensors(tensors, path, metadata={"class_names": json.dumps(["a", "b", "c"])})
    found, told = read(path)
    assert torch.equal(found.features, tensors["features"].float())
    assert found.labels.tolist() == LABELS.tolist()
    assert found.class_names == ("a", "b", "c")
    assert told == []


def test_unsigned_labels_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_arrays({"features": FEATURES, "labels": LABELS.astype(np.uint64)}, path)
    assert read(path)[0].labels.tolist() == LABELS.tolist()


def test_training_features_are_read_only_to_fit_classifiers(path: Path) -> None:
    np.savez(path, features=FEATURES, train_features=FEATURES[:, 0] * np.nan, train_labels=LABELS)
    assert read(path)[0].train_features is None
    assert "train_features is NaN in image 0" in refusal(path, training=True)


def test_an_array_of_another_name_is_told(path: Path) -> None:
    np.savez(path, features=FEATURES, label=LABELS)
    found, told = read(path)
    assert found.labels is None
    assert told == [f"{path}: label is not used; did you mean labels?"]


# ---------------------------------------------------------------------- exports
def exported(**changes: Any) -> FeatureArrays:
    extreme = np.array([0, 1e-45, -3e-39, 3.4e38], dtype=np.float32)  # zero, denormal and nearly the largest
    features = np.concatenate([FEATURES, np.broadcast_to(extreme, (1, 3, 4)), np.zeros((1, 3, 4), np.float32)])
    whole: dict[str, Any] = {
        "features": torch.from_numpy(features),
        "labels": torch.from_numpy(RNG.integers(0, 3, 8)),
        "class_names": ("a", "b", "c"),
        "projector": torch.randn(8, 3, 2),
        "untrained": torch.randn(8, 3, 5),
        "continuous": torch.rand(8, 2, 3),
        "states": torch.randint(-1, 3, (8, 2, 2)),
        "discrete": ("flip", "gray"),
        "settings": {"seed": 3, "analyze": {"num_views": 3}},
        "about": {"part": "test"},
    }
    return FeatureArrays(**whole | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": None, "class_names": ()},
        {"states": torch.zeros(8, 2, 0, dtype=torch.int64), "continuous": torch.zeros(8, 2, 0), "discrete": ()},
    ],
    ids=["labelled", "unlabelled", "without augmentation"],
)
def test_what_is_written_is_read_to_the_last_bit(path: Path, changes: dict[str, Any]) -> None:
    written = exported(**changes)
    write_features(path, written, precision="float32")
    found, told = read(path)
    assert told == []
    for name, value in vars(written).items():
        ours = getattr(found, name)
        assert torch.equal(ours, value) and ours.dtype == value.dtype if torch.is_tensor(value) else ours == value, name
    assert found.digest == written.digest


def test_an_export_is_of_unit_norm_with_lengths_apart(path: Path) -> None:
    write_features(path, exported(), precision="float32")
    with np.load(path) as stored:
        assert np.linalg.norm(stored["features"][:6], axis=2) == pytest.approx(np.ones((6, 3)))
        assert stored["norms"][:6] == pytest.approx(np.linalg.norm(FEATURES.astype(float), axis=2))
        assert stored["view_weights"].tolist() == [0, 0.5, 0.5]


def test_an_export_of_an_earlier_version_is_read_to_the_last_bit(path: Path) -> None:
    write_features(path, exported(), precision="float32")
    with np.load(path) as stored:
        of_old = {name: stored[name] for name in ("features", "norms", "view_weights", "class_names", "precision")}
    np.savez(path, **of_old)
    found, told = read(path)
    assert torch.equal(found.features, exported().features)
    assert (found.labels, found.class_names, told) == (None, (), [])


def test_lengths_of_ones_own_are_not_rounded(path: Path) -> None:
    norms = RNG.uniform(1, 2, (6, 3))
    np.savez(path, features=FEATURES.astype(float), norms=norms)
    assert np.array_equal(read(path)[0].features.numpy(), FEATURES.astype(float) * norms[..., None])
    np.savez(path, features=FEATURES, norms=norms[:, 0])
    assert "norms has shape (6,)" in refusal(path)
    np.savez(path, features=FEATURES, norms=-norms)
    assert "norms has -1.9" in refusal(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": 3}'])
def test_settings_that_are_no_mapping_are_refused(path: Path, text: str) -> None:
    np.savez(path, features=FEATURES, settings=np.array(text))
    assert "settings cannot be read" in refusal(path)


# ---------------------------------------------------------------------- what is refused
class Trap:
    """An object whose unpickling would leave a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["TRAP"],)


@pytest.mark.parametrize("name", ["features", "labels", "class_names"])
def test_nothing_is_unpickled(path: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    objects = np.empty(6, dtype=object)
    objects[:] = [Trap() for _ in range(6)]
    np.savez(path, **{"features": FEATURES, "labels": LABELS, "class_names": ["a", "b", "c"], name: objects})
    said = refusal(path)
    assert f"{name} cannot be read: it holds Python objects" in said
    path.write_bytes(pickle.dumps({"features": Trap()}))
    assert "it is no .npz file" in refusal(path)
    assert not (tmp_path / "sprung").exists()


def header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def archive(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header("(1000000, 1000000, 100)") + bytes(64), "features cannot be read: its header says shape (1000000, "),
        (header("(-6, 4)") + bytes(96), "shape (-6, 4)"),
        (header("(6, 4)") + bytes(90), "96 bytes, and there are 90"),
        (header("(6, 4)", "|O") + bytes(96), "Python objects"),
        (header("(6, 4)", "bogus") + bytes(96), "features cannot be read"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "features cannot be read"),
        (b"", "features cannot be read"),
        (header("(" * 3000), "features cannot be read"),
    ],
)
def test_headers_that_do_not_fit_are_refused_before_room_is_made(path: Path, content: bytes, words: str) -> None:
    archive(path, features=content)
    assert words in refusal(path)


def test_what_does_not_fit_into_memory_is_refused_before_it_is_unpacked(path: Path) -> None:
    archive(path, features=header("(4000, 1000)") + bytes(16_000_000))  # 16 MB in a file of 16 kB
    assert path.stat().st_size < 50_000
    said = refusal(path, largest=8e6)
    assert "does not fit in memory: features needs" in said
    read(path, largest=GIB)


@pytest.mark.parametrize("again", ["features.npy", "features"])
def test_an_array_that_is_there_twice_is_not_chosen_at_random(path: Path, again: str) -> None:
    content = io.BytesIO()
    np.save(content, FEATURES)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as file:
        for name in ("features.npy", again):
            file.writestr(name, content.getvalue())
    assert "features is in it twice" in refusal(path)


def test_numbers_of_a_type_that_nothing_reads_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    description = json.dumps({"features": {"dtype": "F4", "shape": [2, 2], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(description).to_bytes(8, "little") + description + bytes(2))
    assert "features is of float4_e2m1fn_x2" in refusal(path)


def test_states_of_views_that_are_no_numbers_are_refused(path: Path) -> None:
    np.savez(path, features=FEATURES, view_continuous=FEATURES[:, 1:], view_states=np.full((6, 2, 1), "a"))
    assert "view_states is of text, not of whole numbers" in refusal(path)


@pytest.mark.parametrize("cut", [0, 3, 100, 400, -1])
def test_a_truncated_npz(path: Path, cut: int) -> None:
    np.savez(path, features=FEATURES, labels=LABELS)
    path.write_bytes(path.read_bytes()[:cut])
    said = refusal(path)
    assert "np.savez" in said


def test_a_changed_byte_is_found_by_the_checksum_of_the_archive(path: Path) -> None:
    np.savez(path, features=FEATURES, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[content.index(FEATURES.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    assert "features cannot be read: Bad CRC-32" in refusal(path)


@pytest.mark.parametrize("cut", [0, 5, 60, -1])
def test_a_truncated_safetensors(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "f.safetensors"
    save_arrays({"features": FEATURES}, path)
    path.write_bytes(path.read_bytes()[:cut])
    assert ("cannot be read" if cut in (60, -1) else "it is no .npz file, nor a .safetensors one") in refusal(path)


@pytest.mark.parametrize("names", ["{", '"cat"', '["a", 3]', '["a", "b", "c", "c"]', '[["a"], "b"]'])
def test_class_names_in_metadata_that_are_no_list_of_names(tmp_path: Path, names: str) -> None:
    path = tmp_path / "f.safetensors"
    save_arrays({"features": FEATURES, "labels": LABELS}, path, metadata={"class_names": names})
    said = refusal(path)
    assert (
        "class_names has 'c' twice" if names.count("c") > 1 else "class_names in its metadata is no JSON list"
    ) in said


def test_files_that_are_something_else(path: Path, tmp_path: Path) -> None:
    assert "there is no such file" in refusal(path)
    content = io.BytesIO()
    np.save(content, FEATURES)
    path.write_bytes(content.getvalue())
    assert "a single array, as np.save writes it" in refusal(path)
    np.savez(path, h=FEATURES, y=LABELS)
    assert "there is no array features, but h, y\nGive what the encoder makes of images" in refusal(path)
    with zipfile.ZipFile(path, "w"):
        pass
    assert "cannot be read" in refusal(path) or "but none" in refusal(path)
    os.mkfifo(tmp_path / "pipe.npz")
    assert "a named pipe, not a file" in refusal(tmp_path / "pipe.npz")
