"""How often probes and terms wait for a GPU: not for every number, nor in every step of a small search."""

from __future__ import annotations

import pytest
import torch

from cssl_cli.features.intervals import band_factor, bootstrap_interval
from cssl_cli.features.probe.softmax_regression import SoftmaxRegression
from cssl_cli.theory.augmented_distance import augmented_distances
from cssl_cli.theory.certificates.theorem_a import certify_a
from cssl_cli.theory.class_geometry import class_geometry, within_class_distances
from cssl_cli.theory.concentration.refined_distance import refine_distances, refined_concentration
from cssl_cli.theory.estimate import intervals_by_class
from cssl_cli.theory.lipschitz.spectral import operator_norm
from cssl_cli.theory.losses.nt_xent import nt_xent
from cssl_cli.theory.table import FeatureTable, class_moments
from tests.support.device_waits import DeviceWaits


def table_of(num_classes, *, each=6, views=3, width=8):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_classes).repeat(each)
    features = torch.randn(len(labels), views, width, generator=generator, dtype=torch.float64)
    features += 3 * torch.randn(num_classes, 1, width, generator=generator, dtype=torch.float64)[labels]
    return FeatureTable.build(features, labels, [f"class {label}" for label in range(num_classes)])


def waits_of(table, function):
    marked = [tensor for tensor in (table.features, table.labels) if tensor is not None]
    with DeviceWaits(*marked) as waits:
        function(table)
    return waits.count


def test_looks_are_counted_and_follow_what_is_computed():
    number, other = torch.arange(3.0), torch.arange(3.0)
    with DeviceWaits(number) as waits:
        assert (number + 1).sum().item() == 6
        assert number.cpu().sum().item() == 3  # one look, the second is on the host
        assert other.sum().item() == 3
        assert len(other[number > 0]) == 2
        assert (number * 2).tolist() == [0, 2, 4]
    assert waits.count == 4
    with DeviceWaits(number), pytest.raises(AssertionError, match="numpy"):
        (number + 1).numpy()


def test_softmax_regression_waits_once_an_iteration_and_once_a_trial():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(200, 10, generator=generator), torch.randint(4, (200,), generator=generator)
    problem = SoftmaxRegression(features, labels, 4)
    with DeviceWaits(problem.features, problem.targets, problem.gram) as waits:
        solution = problem.solve(1e-6, start=problem.zeros(), tolerance=1e-5)
    assert solution.converged
    assert solution.iterations > 5
    # Mostly one trial each is enough, two at times; it was seven looks and more.
    assert waits.count <= 3 * solution.iterations + 3


def test_nt_xent_waits_for_neither_single_batches_nor_steps_of_its_searches():
    def measure(table, num_batches):
        generator = torch.Generator().manual_seed(0)
        return waits_of(
            table,
            lambda of: nt_xent(of, temperature=0.5, batch_size=4, num_batches=num_batches, generator=generator),
        )

    unlabelled = FeatureTable(table_of(2).features, None, ())
    assert measure(unlabelled, 9) <= 3
    assert measure(table_of(2), 1) <= 12


def test_intervals_are_read_at_once():
    replicates = torch.randn(100, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, sizes = replicates.mean(dim=0), torch.full((6,), 9)
    with DeviceWaits(replicates, values) as waits:
        bootstrap_interval(0.0, replicates[:, 0], degrees=8)
    assert waits.count == 1
    with DeviceWaits(replicates, values) as waits:
        assert band_factor(values, replicates, degrees=8) > 1
    assert waits.count == 2
    with DeviceWaits(replicates, values, sizes) as waits:
        found = intervals_by_class(list("abcdef"), values, replicates, sizes)
    assert None not in found.values()
    assert waits.count == 3


def test_images_are_found_by_class_at_once():
    few, many = (
        waits_of(table_of(num), lambda table: class_moments(table, torch.ones(2, table.num_images).double()))
        for num in (2, 9)
    )
    assert few == many <= 2


def test_a_choice_of_thresholds_waits_for_no_single_candidate():
    table = table_of(3, each=20)
    with DeviceWaits(table.features, table.labels):
        geometry = class_geometry(table)
        within = within_class_distances(table)
    with DeviceWaits(table.features, table.labels, geometry.centers, geometry.diameter, *within) as waits:
        certify_a(geometry, within)
    assert waits.count <= 12 * 3  # classes; one candidate looked twice, and there are up to twenty of a class


def test_blocks_of_augmented_distances_are_looked_at_once():
    views = torch.randn(700, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with DeviceWaits(views) as waits:
        augmented_distances(views)
    assert waits.count == 3 * (3 + 1) / 2  # blocks of 256 images, on and above the diagonal


def test_lanczos_looks_at_ten_steps_at_once():
    matrix = torch.randn(40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with DeviceWaits(matrix) as waits:
        norm = operator_norm(
            lambda x: x @ matrix.T,
            lambda y: y @ matrix,
            (40,),
            (40,),
            like=matrix,
            generator=torch.Generator().manual_seed(1),
            dense=1,
            steps=30,
        )
    assert waits.count == 3
    assert norm.low == pytest.approx(torch.linalg.matrix_norm(matrix, ord=2).item(), rel=1e-9)


class Scaled:
    """An augmentation in one operation: those of the package pick images on a CPU, which would be looks."""

    num_parameters = 2

    def clean(self, images):
        return images / 255

    def apply(self, images, theta):
        return images * theta.mean(dim=1)[:, None, None, None]

    def draw(self, number, generator):
        return torch.rand(number, 2, generator=generator)


def test_the_search_for_nearer_views_waits_for_nothing():
    generator = torch.Generator().manual_seed(0)
    images, augmentation = torch.randint(256, (6, 3, 4, 4), dtype=torch.uint8, generator=generator), Scaled()
    pairs = torch.combinations(torch.arange(6))
    start = augmentation.draw(2 * len(pairs), generator).unflatten(0, (-1, 2))
    with DeviceWaits(images, pairs, start) as waits:
        found, _ = refine_distances(
            images, pairs, start, augmentation, to_vectors=lambda v: v.flatten(1), steps=5, generator=generator
        )
        assert waits.holds(found)
    assert waits.count == 0


def test_the_search_for_nearer_views_goes_where_it_is_told():
    class Reached(Exception):
        pass

    def vectors(views):
        raise Reached(views.device.type)

    generator = torch.Generator().manual_seed(0)
    with pytest.raises(Reached, match="meta"):
        refined_concentration(
            torch.zeros(6, 3, 4, 4, dtype=torch.uint8),
            torch.arange(2).repeat(3),
            ["a", "b"],
            Scaled(),
            torch.rand(6, 2, 2),
            to_vectors=vectors,
            num_pairs=6,
            steps=1,
            deltas_absolute=[1.0],
            generator=generator,
            device=torch.device("meta"),
        )
