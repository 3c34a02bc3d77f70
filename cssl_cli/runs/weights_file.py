"""Weights as a safetensors file with facts, a digest of the weights, and a checksum over the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from cssl_cli.host import checksums

if TYPE_CHECKING:
    import torch

WEIGHTS_DIGEST = "weights_sha256"
_LARGEST_HEADER = 1 << 24  # bytes


def packed(state: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> bytes:
    """The file's content, with `facts` as JSON under the key "cssl" of its metadata."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    facts = {**facts, WEIGHTS_DIGEST: _digest_of(tensors), checksums.FIELD: checksums.BLANK}
    # A single key: safetensors writes several in arbitrary order.
    return checksums.seal(save(tensors, metadata={"cssl": json.dumps(facts)}), in_header=True)


def facts_in(file: BinaryIO) -> dict[str, Any]:
    """The facts in a file; ValueError if its header is invalid."""
    size = int.from_bytes(file.read(8), "little")
    try:
        header = json.loads(file.read(min(size, _LARGEST_HEADER)))
        facts = json.loads(header.get("__metadata__", {}).get("cssl", "{}"))
    except (AttributeError, TypeError, RecursionError) as error:
        raise ValueError("its header is not one of ours") from error
    if not isinstance(facts, dict):
        raise ValueError("its header is not one of ours")
    return facts


def _digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """A digest of names and values only: the same weights in another run have the same digest."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
