"""Published values, claims, --versus and --sort on the command line: on results that were really computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import QUICKLY_MEASURED, CommandLine, Invoke

SWEEP = """\
name: compared
base: tiny.yaml
axes:
  augment:
    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}
    full: {}
seeds: 2
reference:
  source: a paper
  accuracy: knn
  selection: best_epoch
  protocol: {train.epochs: 800}
  values: {crop: 60, full: 90}
claims:
  - {says: full is best, rows: full, largest: [linear, one_minus_sigma_pixels]}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep's file and its finished runs."""
    from cssl_cli.host.progress import Silent
    from cssl_cli.sweep.request import SweepRequest
    from cssl_cli.sweep.run import run_sweep
    from cssl_cli.sweep.sweep import load_sweep

    folder = tmp_path_factory.mktemp("compared")
    recipe = QUICKLY_MEASURED.replace("epochs: 3", "epochs: 2").replace("knn_k: 10,", "knn_k: 10, every: 1,")
    recipe = recipe.replace("num_train: 256", "num_train: 128").replace("[pixels, trained]", "[pixels]")
    (folder / "tiny.yaml").write_text(recipe)
    (folder / "compared.yaml").write_text(SWEEP)
    run_sweep(SweepRequest(load_sweep(str(folder / "compared.yaml")), folder / "runs"), Silent())
    return folder


def test_the_report_holds_them_all(finished: Path, invoke: Invoke) -> None:
    arguments = ("sweep", finished / "compared.yaml", "--out", finished / "runs", "--report")
    content = json.loads(invoke(*arguments, "--json", "--sort", "-linear", "--versus", "crop").stdout)
    means = {row["row"]: row["cells"]["linear"]["mean"] for row in content["rows"]}
    assert list(means) == sorted(means, key=means.__getitem__, reverse=True)
    by_row = {row["row"]: row for row in content["rows"]}
    published = content["reference"]
    assert published["ours"] == "best_knn"
    assert published["epochs_measured"] == [2, 2]
    for entry in published["rows"]:
        cells = by_row[entry["row"]]["cells"]
        assert entry["ours"] == cells["best_knn"]["mean"] >= entry["last"] == cells["knn"]["mean"]
        assert by_row[entry["row"]]["reference"] == {"knn": entry["theirs"], "best_knn": entry["theirs"]}
    (claim,) = content["claims"]
    sigma = {row: by_row[row]["cells"]["one_minus_sigma_pixels"]["mean"] for row in ("crop", "full")}
    best = means["full"] > means["crop"] and sigma["full"] > sigma["crop"]
    assert claim["verdict"] == ("yes" if best else "no")
    assert {row for part in claim["parts"] for row in part["means"]} == {"crop", "full"}
    values = {(member["row"], member["seed"]): member["values"]["linear"] for member in content["members"]}
    (full,) = (entry for entry in content["versus"]["comparisons"] if entry["row"] == "full")
    expected = sum(values["full", seed] - values["crop", seed] for seed in (0, 1)) / 2
    assert full["differences"]["linear"]["mean"] == pytest.approx(expected)

    text = invoke(*arguments, "--versus", "crop").stdout
    for words in ("Published: a paper", "train.epochs 2, theirs 800", "full is best: ", "Difference from crop"):
        assert words in " ".join(text.split())
    plain = invoke(*arguments).stdout
    assert "Difference from" not in plain
    assert "versus" not in json.loads(invoke(*arguments, "--json").stdout)


def test_a_part_of_the_rows_is_shown_and_claims_are_of_the_whole(finished: Path, invoke: Invoke) -> None:
    arguments = ("sweep", finished / "compared.yaml", "--out", finished / "runs", "--report", "--only", "full")
    content = json.loads(invoke(*arguments, "--json", "--versus", "crop").stdout)
    assert [row["row"] for row in content["rows"]] == ["full"]
    assert [row["row"] for row in content["reference"]["rows"]] == ["full"]
    assert [entry["row"] for entry in content["versus"]["comparisons"]] == ["full"]
    assert content["claims"][0]["verdict"] in ("yes", "no")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--versus", "ful"), "no row is called 'ful'"),
        (("--sort", "linaer"), "unknown quantity 'linaer'"),
        (("--sort", "linear", "--dry-run"), "--correlations are for the table of results"),
        (
            ("--versus", "full", "--concentration-only"),
            "--correlations are for the table of results",
        ),
    ],
)
def test_bad_options_are_refused_before_anything_runs(
    tmp_path: Path, cssl_here: CommandLine, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED)
    (tmp_path / "compared.yaml").write_text(SWEEP)
    done = cssl_here("sweep", "compared.yaml", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_claim_about_an_unknown_quantity_is_refused_before_anything_runs(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED)
    (tmp_path / "compared.yaml").write_text(SWEEP.replace("one_minus_sigma_pixels", "one_minus_sigma_pixel"))
    refused = invoke("sweep", "compared.yaml")
    assert refused.code == 2
    assert "claims[0].largest (line 15) names 'one_minus_sigma_pixel', which is no quantity" in refused.stderr
    assert "did you mean one_minus_sigma_pixels?" in refused.stderr
    assert not (tmp_path / "runs").exists()
