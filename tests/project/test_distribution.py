"""What pyproject.toml says of the distribution agrees with the package."""

import tomllib
from importlib.util import find_spec
from pathlib import Path

import cssl_cli

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_names_and_version() -> None:
    assert PROJECT["name"] == "cssl-cli"  # "cssl" on PyPI is another project
    assert PROJECT["version"] == cssl_cli.__version__
    (script, target), *more = PROJECT["scripts"].items()
    assert script == "cssl"
    assert not more
    assert find_spec(target.partition(":")[0]) is not None


def test_the_type_hints_are_declared() -> None:
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert (Path(cssl_cli.__file__).parent / "py.typed").exists()
