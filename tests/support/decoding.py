"""Images of random samples, decoded or refused."""

import numpy as np
import pytest
from PIL import Image

from cssl_cli.data.decode import decode_image, decode_into
from cssl_cli.errors import InputError

N = 9  # odd, so that packed rows end within a byte
RANDOM = np.random.default_rng(0)


def samples(bits, *channels):
    return RANDOM.integers(0, 2**bits, (N, N, *channels))


def decoded(tmp_path, content, size=N, name="image.tif"):
    path = tmp_path / name
    path.write_bytes(content)
    return decode_image(path, size).transpose(1, 2, 0).astype(int)


def refusal(tmp_path, content, name="image.tif"):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        decode_into(np.zeros((1, 3, 8, 8), dtype=np.uint8), [path], progress=None)
    assert caught.value.where == str(path)
    return caught.value.what


def picture():
    return Image.fromarray(RANDOM.integers(0, 256, (N, N, 3), dtype=np.uint8))
