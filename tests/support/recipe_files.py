"""Small recipe files, and the error that one is refused with."""

from __future__ import annotations

import pytest

from cssl_cli.errors import InputError
from cssl_cli.recipe import load_recipe

GOOD = """\
name: mine
data: {name: shapes}
augment:
  crop: {}
encoder: {name: small}
method: {name: simclr}
optim: {name: sgd, lr: 0.1}
train: {epochs: 5}
"""

# Nothing but what is required.
MINIMAL = """\
name: minimal
data: {name: shapes}
augment: {}
encoder: {name: small}
method: {name: simclr}
optim: {name: sgd, lr: 0.5}
train: {epochs: 5}
"""


def refusal(name_or_path: str, *overrides: str) -> InputError:
    with pytest.raises(InputError) as error:
        load_recipe(name_or_path, overrides)
    return error.value
