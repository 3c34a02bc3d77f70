"""`cssl` from Python: what the commands do, as functions of typed arguments that return what `--json` prints.

Results are plain mappings of JSON types. What a command says on stderr goes to `progress`, a function that takes a
sentence, such as `print`; without it nothing is said. Whatever cannot be done raises a `CsslError` with a sentence, as
the commands end in one: `InputError` for input that cannot be used, `RunError` for what failed all the same.
docs/how-to/python.md has examples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cssl_cli.errors import CsslError, InputError, RunError
from cssl_cli.host.progress import Notices
from cssl_cli.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch import device as TorchDevice

    from cssl_cli.features.arrays import FeatureArrays
    from cssl_cli.runs.loaded_encoder import LoadedEncoder

__all__ = [
    "CsslError",
    "InputError",
    "Recipe",
    "RunError",
    "analyze",
    "analyze_features",
    "load_encoder",
    "load_recipe",
    "pretrain",
    "probe",
    "probe_features",
    "report",
]

Array: TypeAlias = "np.ndarray | Tensor | Sequence[Any]"
Place: TypeAlias = "str | Path"
Device: TypeAlias = "str | TorchDevice | None"
Say = Callable[[str], object]


# ---------------------------------------------------------------------- runs
def load_recipe(recipe: Place, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe that ships, by its name, or one in a file; `overrides` such as "train.epochs=20" change it.

    Raises InputError that lists all faults.
    """
    from cssl_cli.recipe import load_recipe as load

    return load(str(recipe), _texts(overrides))


def pretrain(
    recipe: Recipe,
    *,
    out: Place = "runs",
    device: Device = None,
    data_root: Place | None = None,
    restart: bool = False,
    progress: Say | None = None,
) -> Path:
    """Train the recipe's encoder; returns its run directory under `out`, as `cssl pretrain` would make it.

    A finished run is left as it is, a stopped one goes on where it was; `restart` trains it anew. `device` is such as
    "cpu" or torch's, by default the best there is; `data_root` the folder of the images, if not the recipe's.
    """
    from cssl_cli.runs.pretrain import pretrain as train

    _require_one_process("pretrain")
    run = train(
        recipe,
        out=Path(out),
        reporter=_Told(progress),
        device_name=_name(device),
        restart=restart,
        data_root=_folder(data_root),
    )
    return run.path


def probe(
    run: Place,
    *,
    data: Place | None = None,
    overrides: Sequence[str] = (),
    device: Device = None,
    data_root: Place | None = None,
    precision: str = "float32",
    again: bool = False,
    progress: Say | None = None,
) -> dict[str, Any]:
    """The accuracies of a finished run's encoder, as `cssl probe RUN --json` prints them; written to probe.json.

    `overrides` change settings of the probe, such as "probe.knn_k=20". What was measured before with the same settings
    is read, unless `again`. `data` is the name of a data set, or a recipe, whose images are classified in place of the
    run's; then overrides such as "data.size=64" are about these, and the result is written to the folder transfer/.
    """
    from cssl_cli.runs.overrides import recipe_elsewhere, recipe_with
    from cssl_cli.runs.probe import probe as measure
    from cssl_cli.runs.transfer import transfer

    _require_one_process("probe")
    path = Path(run)
    options: dict[str, Any] = {"reporter": _Told(progress), "device_name": _name(device), "again": again}
    options |= {"data_root": _folder(data_root), "precision": precision}
    if data is None:
        return _as_json(measure(path, recipe=recipe_with(_texts(overrides), path), **options))
    recipe, elsewhere = recipe_elsewhere(str(data), _texts(overrides), path)
    return _as_json(transfer(path, recipe=recipe, elsewhere=elsewhere, **options))


def analyze(
    run: Place,
    *,
    overrides: Sequence[str] = (),
    figures: bool = False,
    export: Place | None = None,
    device: Device = None,
    data_root: Place | None = None,
    precision: str = "float32",
    again: bool = False,
    progress: Say | None = None,
) -> dict[str, Any]:
    """The terms of a finished run, as `cssl analyze RUN --json` prints them; written to analysis.json.

    `overrides` change settings of the analysis, such as "analyze.num_views=4". `figures` are drawn into the run
    directory; the features measured on go to the file `export` (.npz). What was measured before with the same settings
    is read, unless `again`.
    """
    from cssl_cli.report.analysis import analysis_content
    from cssl_cli.runs.analyze import analyze as measure
    from cssl_cli.runs.overrides import recipe_with
    from cssl_cli.runs.run_dir import FIGURES, TRACE, RunDir

    _require_one_process("analyze")
    result = measure(
        Path(run),
        reporter=_Told(progress),
        device_name=_name(device),
        recipe=recipe_with(_texts(overrides), Path(run)),
        export=None if export is None else Path(export),
        again=again,
        data_root=_folder(data_root),
        precision=precision,
    )
    if figures:
        from cssl_cli.report.figures.figures import draw_figures

        directory = RunDir(Path(run))
        draw_figures(result, directory.read_records(TRACE), directory.file(FIGURES))
    return _as_json(analysis_content(result))


def load_encoder(run: Place, *, device: Device = None, progress: Say | None = None) -> LoadedEncoder:
    """The encoder of a finished run: a module that takes images (B, C, H, W), uint8 or floats in 0 … 1.

    Gives features (B, D), not scaled to unit norm. It normalises the images itself, is in eval mode, and its weights
    take no gradients.
    """
    from cssl_cli.runs.loaded_encoder import load_encoder as load

    return load(Path(run), reporter=_Told(progress), device_name=_name(device))


def report(
    *targets: Place,
    overrides: Sequence[str] = (),
    runs: Place = "runs",
    format: str = "html",
    out: Place | None = None,
    accuracy: str = "linear",
) -> str:
    """All that is known of runs, or of a sweep, as `cssl report` writes it; nothing is measured.

    targets: run directories, or one sweep: its name, its file, or the folder of its runs; `runs` is where that folder
    of a sweep that is named lies, and `overrides` are those it was run with. format: "html", a page, or its main table
    as "md", "csv" or "latex". Returns the text, which is also written to the file `out`, if given.
    """
    from cssl_cli.report.compare.catalogue import accuracy_named
    from cssl_cli.report.document.target import documented
    from cssl_cli.report.document.writing import in_format, write_text

    predicted = accuracy_named(accuracy)
    asked = documented(
        [str(target) for target in targets], overrides=_texts(overrides), runs=Path(runs), accuracy=predicted
    )
    text = in_format(asked.document, format)
    if out is not None:
        write_text(text, Path(out))
    return text


# ---------------------------------------------------------------------- features from elsewhere
def analyze_features(
    features: Array | Place,
    labels: Array | None = None,
    *,
    class_names: Sequence[str] | None = None,
    untrained: Array | None = None,
    projector: Array | None = None,
    overrides: Sequence[str] = (),
    device: Device = None,
    progress: Say | None = None,
) -> dict[str, Any]:
    """The terms of features, as `cssl analyze FEATURES.npz --json` prints them; nothing is written.

    features: (N, V, D), view 0 the clean image and the others random augmentations of it, or (N, D); not scaled. Or the
    path of a file that has them, and then no other array is given. labels: (N,), whole numbers or names of classes.
    untrained, projector: the same images and views under the untrained encoder and the projector. overrides: settings,
    such as "analyze.bootstrap=1000", "seed=1" or "method.temperature=0.1".
    """
    from cssl_cli.recipe.measurement import load_measurement
    from cssl_cli.report.analysis import analysis_content
    from cssl_cli.runs.features import analyze_features as measure

    reporter = _Told(progress)
    given = {"labels": labels, "class_names": class_names, "untrained": untrained, "projector": projector}
    arrays = _arrays(features, given, reporter)
    measurement = load_measurement(arrays.settings, _texts(overrides), where="features")
    return _as_json(analysis_content(measure(arrays, measurement, reporter=reporter, device_name=_name(device))))


def probe_features(
    features: Array | Place,
    labels: Array | None = None,
    train_features: Array | None = None,
    train_labels: Array | None = None,
    *,
    class_names: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    device: Device = None,
    progress: Say | None = None,
) -> dict[str, Any]:
    """Accuracies on features (N, D), as `cssl probe FEATURES.npz --json` prints them; nothing is written.

    Classifiers are fitted on train_features (M, D) with train_labels (M,). Of features (N, V, D) view 0 is classified;
    the class centres are means over the augmented views of training images, where train_features has them. Or
    `features` is the path of a file that has all four.
    """
    from cssl_cli.recipe.measurement import load_measurement
    from cssl_cli.runs.features import probe_features as measure

    given = {"labels": labels, "train_features": train_features, "train_labels": train_labels}
    arrays = _arrays(features, {**given, "class_names": class_names}, _Told(progress), training=True)
    return _as_json(
        measure(arrays, load_measurement({}, _texts(overrides), where="features"), device_name=_name(device))
    )


def _arrays(
    features: Array | Place, others: Mapping[str, Any], reporter: _Told, *, training: bool = False
) -> FeatureArrays:
    from cssl_cli.features.arrays import check_arrays
    from cssl_cli.runs.features import load_features

    if not isinstance(features, (str, Path)):
        return check_arrays({"features": features, **others}, where="features")
    if given := [name for name, array in others.items() if array is not None]:
        raise InputError(
            f"{', '.join(given)} cannot go with a file of features", where=str(features), remedy="Put it in the file."
        )
    return load_features(Path(features), reporter, training=training)


# ---------------------------------------------------------------------- arguments and results
class _Told(Notices):
    """Tells a function of sentences: messages, and tasks as they end."""

    def __init__(self, say: Say | None) -> None:
        super().__init__()
        self._say = say

    def say(self, message: str) -> None:
        if self._say is not None:
            self._say(message)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        if done >= total:
            self.say(f"{task}: {detail or f'{total:,} done'}")


def _require_one_process(function: str) -> None:
    """For what writes to a run directory: processes of one script would do the same in it at once."""
    from cssl_cli.host.launched import require_one_process

    require_one_process(f"`cssl_cli.api.{function}`")


def _texts(overrides: Sequence[str]) -> Sequence[str]:
    if isinstance(overrides, str) or not all(isinstance(text, str) for text in overrides):
        raise InputError("no list of str", where="overrides", remedy='Give such as ["train.epochs=20", "seed=1"].')
    return overrides


def _name(device: Device) -> str | None:
    return None if device is None else str(device)


def _folder(path: Place | None) -> str | None:
    from cssl_cli.recipe.load import read_folder

    return None if path is None else read_folder(str(path), "data_root")


def _as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content as it is read back from JSON: lists for tuples."""
    result: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    return result
