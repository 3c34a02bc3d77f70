"""What sections of `cssl analyze` print: losses, concentration, certificates without labels."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cssl_cli.report.layout import console
from cssl_cli.report.sections import concentration
from cssl_cli.report.sections.concentration import print_concentration
from tests.support.commands import QUICKLY_MEASURED, Invoke

Show = Callable[..., str]


# ---------------------------------------------------------------------- alignment
def test_bounds_on_r_epsilon_are_not_shown_as_tighter_than_they_are(content: dict[str, Any], show: Show) -> None:
    bounds, epsilons = content["trained"]["R_epsilon_bounds"], content["settings"]["epsilons"]
    of_all = {"stored_views": 2.0, "iid_views": 0.1001, "converse": 0.4999, "theorem_2": None, "theorem_2_sharp": 3e7}
    for name, value in of_all.items():
        bounds[name] |= {"value": [value] * len(epsilons)}
    assert f" {epsilons[0]:g} 2.0 v 0.101 0.499 – 3.0e+07 v " in show(content, "alignment")
    bounds["converse"]["value"] = [1.0] + [0.0] * (len(epsilons) - 1)  # of two opposite views: no lower bound is higher
    printed = show(content, "alignment")
    assert f" {epsilons[0]:g} 2.0 v 0.101 1.000 – " in printed
    assert f" {epsilons[1]:g} 2.0 v 0.101 0.000 v – " in printed


# ---------------------------------------------------------------------- losses
def test_the_losses_say_what_they_were_measured_with(content: dict[str, Any], show: Show) -> None:
    for encoder in ("trained", "projector", "untrained"):
        content[encoder]["nt_xent"]["batch_size"]["value"] = 100
        content[encoder]["info_nce"]["loss"] |= {"num_images": 300, "num_views": 7}
    content["loss_settings"] = {"temperature": 0.2, "batch_size": 100, "of_the_method": True}
    printed = show(content, "losses")
    assert "NT-Xent, frozen features, batches of 100, T = 0.2 errs" in printed
    assert "InfoNCE with one negative, 300 images × 7 views, T = 0.2 errs" in printed
    content["loss_settings"] = {"temperature": 0.5, "batch_size": 128, "of_the_method": False}
    printed = show(content, "losses")
    assert "batches of 100 (all images; 128 in training), T = 0.5 (the method has none) errs" in printed


def test_the_intervals_of_nt_xent_are_said_to_be_over_batches(content: dict[str, Any], show: Show) -> None:
    said = "Intervals of NT-Xent: over the batches drawn from these images, not over images."
    assert said in show(content, "losses")
    content["trained"]["nt_xent"]["loss"]["interval"] = None
    assert said not in show(content, "losses")


def test_the_settings_of_the_losses_are_in_the_analysis(
    invoke: Invoke, content: dict[str, Any], tmp_path: Path
) -> None:
    assert content["loss_settings"] == {"temperature": 0.5, "batch_size": 64, "of_the_method": True}
    assert content["trained"]["nt_xent"]["batch_size"]["value"] == 50  # all images of the table
    twins = "method={name: barlow_twins, projector: [16, 8]}"
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED)
    assert invoke("pretrain", "tiny.yaml", twins, "train.epochs=1").code == 0
    (run,) = Path("runs").iterdir()
    found = json.loads(invoke("analyze", run, "--json", "--no-figures").stdout)
    assert found["loss_settings"] == {"temperature": 0.5, "batch_size": 64, "of_the_method": False}


def test_floors_and_certified_shares_are_rounded_down(content: dict[str, Any], show: Show) -> None:
    for encoder in ("trained", "projector", "untrained"):
        content[encoder]["nt_xent"]["collapse_floor"]["value"] = 4.9996
    assert "floor of the divergence part exact* 4.999 4.999 4.999" in show(content, "losses", width=120)
    shares = content["trained"]["certificate_a"]["certified_share_per_class"]["value"]
    name = next(iter(shares))
    shares[name] = 0.9996
    assert f" {name} 99.9 " in show(content, "certificates", width=120)


def test_images_drawn_anew_for_the_papers_temperature_are_called_that(content: dict[str, Any], show: Show) -> None:
    """Numbers that do not depend on the temperature differ between the two tables for this reason."""
    content["trained"]["info_nce_paper"]["loss"] |= {"num_images": 50, "num_views": 7}
    assert "as in the paper, 50 images × 7 views errs" in show(content, "losses")
    content["num_images"] = 60
    assert "as in the paper, 50 images × 7 views drawn anew errs" in show(content, "losses")


# ---------------------------------------------------------------------- spectrum
def test_the_spectrum_is_shown_at_powers_of_two(content: dict[str, Any], show: Show) -> None:
    for encoder, count in (("trained", 16), ("projector", 5), ("untrained", 16)):
        found = content[encoder]["positive_pairs"]
        found["functions"]["value"] = list(range(1, count + 1))
        found["eigenvalues"]["value"] = [0.9 - 0.05 * place for place in range(count)]
        found["label_energy"]["value"] = [0.02 * (place + 1) for place in range(count)]
    content["trained"]["positive_pairs"]["tau_dimension"]["value"] = 1
    printed = show(content, "spectrum", width=120)
    assert "functions λ encoder λ projector λ untrained energy encoder energy projector energy untrained" in printed
    assert " 4 0.750 0.750 0.750 8.0 8.0 8.0 8 0.550 – 0.550 16.0 – 16.0 16 0.150 – 0.150 32.0 – 32.0 " in printed
    assert "3 0.800" not in printed
    assert "τ of the trained encoder is least for 1 function." in printed
    for name in ("label_energy", "tau_dimension"):
        for encoder in ("trained", "projector", "untrained"):
            content[encoder]["positive_pairs"][name] = {"value": None, "reason": "the images have no labels"}
    printed = show(content, "spectrum", width=120)
    assert "functions λ encoder λ projector λ untrained ──" in printed
    assert "is least for" not in printed


def test_no_heading_of_the_spectrum_is_cut_off_in_a_narrow_terminal(content: dict[str, Any], show: Show) -> None:
    printed = show(content, "spectrum", width=80)
    assert "functions λ encoder λ projector λ untrained ──" in printed
    assert "functions energy encoder energy projector energy untrained ──" in printed


def test_a_number_of_functions_that_is_missing_has_no_row(content: dict[str, Any], show: Show) -> None:
    content["trained"]["positive_pairs"]["functions"]["value"][0] = None
    assert "functions λ encoder" in show(content, "spectrum", width=120)


def test_an_analysis_without_the_spectrum_says_so(content: dict[str, Any], show: Show) -> None:
    """That of an older version."""
    for encoder in ("trained", "projector", "untrained"):
        del content[encoder]["positive_pairs"]
    printed = show(content, "spectrum")
    assert "–: not measured by the version that made this analysis; --again measures it." in printed
    assert "I(v; v′)" not in printed


# ---------------------------------------------------------------------- concentration
def test_the_multiple_at_which_concentration_is_read_is_named(
    content: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    for deltas, words in (
        ([0.1, 0.5], "1−σ rel.: at 0.5 times the distance in the between column as δ"),
        ([0.5, 1.0], "1−σ rel.: at the distance in the between column as δ"),
    ):
        content["settings"]["deltas"] = deltas
        for quantities in content["concentration"].values():
            quantities["sigma_relative"]["value"] = [0.25, 0.5]
            quantities["sigma_relative_high"]["value"] = [0.25, 0.5]
        print_concentration(console(), content)
        printed = capfd.readouterr().out
        assert words in " ".join(printed.split())
        assert "50.0" in printed
        assert "W/B" not in printed


@pytest.mark.parametrize(("width", "tables"), [(80, 3), (110, 2), (160, 1)])
def test_a_name_is_whole_in_tables_of_concentration(width: int, tables: int) -> None:
    numbers = ["4.566", "46.0", "–", "5.428", "5.503", "0.986", "38.0"]
    cells = [*numbers, "12.0  [2.5, 31.2]", "7.953 + 4.124 = 12.078"]
    out = Console(width=width, file=io.StringIO())
    concentration._table(out, "two", [("a-rather-long-name-of-a-set", cells)])
    assert isinstance(out.file, io.StringIO)
    shown = out.file.getvalue()
    assert shown.count("a-rather-long-name-of-a-set ") == tables
    assert all(cell in shown for cell in cells)


def test_without_distances_there_is_a_sentence(content: dict[str, Any], show: Show) -> None:
    content["concentration"] = {}
    printed = show(content, "concentration")
    assert "analyze.distances names no distance" in printed
    assert "1−σ" not in printed


def test_one_is_singular(content: dict[str, Any], show: Show) -> None:
    content["settings"]["num_views"] = 1
    content["trained"]["R_epsilon"]["curve"] |= {"num_images": 1, "num_views": 2}
    printed = show(content, "alignment", "concentration")
    assert "1 view each" in printed
    assert "1 image, 2 views." in printed
    assert not re.search(r"\b1 (views|images)\b", printed)


def test_certificates_of_unlabelled_images_are_one_sentence(content: dict[str, Any], show: Show) -> None:
    content["class_names"] = None
    printed = show(content, "certificates", lines=True)
    assert "\nCertificates\n–: the images have no labels.\n" in printed
    assert "Theorem" not in printed.split("\nCertificates\n")[1]


def test_few_labels_are_shown_as_far_as_they_were_measured(content: dict[str, Any], show: Show) -> None:
    printed = show(content, "certificates")
    for label in ("1 labelled image a class", "50 labelled images a class"):
        assert label in printed
    del content["trained"]["few_labels"]["error_50"]
    assert "50 labelled images" not in show(content, "certificates")
