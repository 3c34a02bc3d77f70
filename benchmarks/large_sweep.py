"""A large sweep that is done: seconds and peak memory of its plan, states, table, figures, page and statistics.

    python benchmarks/large_sweep.py [--members 10000] [--only table] [--keep DIR]

One tiny run is trained; every member has its folder and its line in the index of the results, with accuracies and terms
moved at random. So nothing is read of analysis.json, which is done once, when a member ends or the first report is
made: 20 ms for each (docs/reliability.md).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import measuring

from cssl_cli.report.compare.extract import take_numbers
from cssl_cli.report.compare.named_quantities import NAMES
from cssl_cli.runs.run_dir import ANALYSIS, ENCODER, ENVIRONMENT, EPOCH_KNN, PROBE, RECIPE, STATUS, RunDir, kept_name
from cssl_cli.sweep import results_index
from cssl_cli.sweep.results_index import ResultsIndex, Wanted, read_results
from cssl_cli.sweep.run import as_run, member_path
from cssl_cli.sweep.stored import NAME, store_sweep
from cssl_cli.sweep.sweep import Sweep, load_sweep

SWEEP = """
name: large
base:
  based_on: simclr-shapes
  data: {{num_train: 256, num_test: 100, size: 8}}
  encoder: {{width: 2}}
  method: {{projector: [16, 8]}}
  optim: {{warmup_epochs: 0}}
  train: {{epochs: 1, batch_size: 64}}
  probe: {{center_views: 1, penalties: [0.1]}}
  analyze: {{num_images: 50, num_views: 3, refine_pairs: 0, bootstrap: 0}}
axes:
  method.temperature: [{temperatures}]
  optim.lr: [{rates}]
  encoder.width: [2, 3, 4, 5]
"""
MEASURED = """
import atexit, pathlib, re
def tell():
    status = pathlib.Path("/proc/self/status").read_text()
    pathlib.Path("peak.txt").write_text(re.search(r"VmHWM:\\s*(\\d+)", status)[1])
atexit.register(tell)
from cssl_cli.__main__ import main
main()
"""
HOME = "runs/large"
COMMANDS = {
    "plan: sweep --dry-run": ["sweep", "{file}", "--dry-run"],
    "table: sweep --report": ["sweep", "{file}", "--report", "--no-figures", "--no-html"],
    "table and figures": ["sweep", "{file}", "--report", "--no-html"],
    "sweep, when all is done": ["sweep", "{file}", "--no-figures", "--no-html"],
    "state: watch --once": ["watch", "{home}", "--once"],
    "page: report": ["report", "{home}", "--out", "{page}"],
    "table as CSV: report": ["report", "{home}", "--format", "csv", "--out", "{csv}"],
}


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--members", type=int, default=10_000, help="a multiple of 8, beyond 400 of 400")
    parser.add_argument("--only", default="", help="commands whose name holds this")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the sweep there, or find it there, and leave it")
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    folder = options.keep or Path(tempfile.mkdtemp())
    try:
        file = folder / "large.yaml"
        if not (folder / HOME / NAME).exists():  # which is written last: a part of a sweep would be trained
            make(file, options.members)
        measure(file, options, report)
    finally:
        if options.keep is None:
            shutil.rmtree(folder)
    report.finish(options.json)


def measure(file: Path, options: Any, report: measuring.Report) -> None:
    places = {"file": file.name, "home": HOME, "page": "page.html", "csv": "table.csv"}
    members = sum((folder / RECIPE).exists() for folder in (file.parent / HOME).iterdir())
    rows = []
    for name, words in COMMANDS.items():
        if options.only not in name:
            continue
        with (file.parent / "out.txt").open("w") as out, (file.parent / "err.txt").open("w") as err:
            began = time.perf_counter()
            command = [sys.executable, "-c", MEASURED, *(word.format(**places) for word in words)]
            code = subprocess.run(command, cwd=file.parent, stdout=out, stderr=err, check=False).returncode
            seconds = time.perf_counter() - began
        if code:
            raise SystemExit(f"{name} ended with {code}:\n{(file.parent / 'err.txt').read_text()}")
        peak = int((file.parent / "peak.txt").read_text()) / 2**20
        report.numbers[f"{name}, seconds"] = seconds
        report.numbers[f"{name}, peak GiB"] = peak
        lines = len((file.parent / "out.txt").read_text().splitlines())
        rows.append([name, f"{seconds:.1f}", f"{peak:.2f}", f"{lines:,}"])
    measuring.print_table([f"{members:,} members", "s", "peak GiB", "lines"], rows)


# ------------------------------------------------------------------------- a sweep without training
def make(file: Path, members: int) -> None:
    """A sweep's file and its runs, all done."""
    file.parent.mkdir(parents=True, exist_ok=True)
    num_rates = min(100, members // 4)
    temperatures, rates = _numbers(0.1, 1.0, members // num_rates // 4), _numbers(1e-3, 1e-2, num_rates)
    file.write_text(SWEEP.format(temperatures=temperatures, rates=rates))
    one = [sys.executable, "-m", "cssl_cli", "sweep", file.name, "--jobs", "0", "--no-html", "--no-figures"]
    subprocess.run([*one, "--out", "one", "--shard", f"1/{members}"], cwd=file.parent, check=True, capture_output=True)
    sweep = load_sweep(str(file), quantities=NAMES, max_members=None)
    trained = RunDir(member_path(sweep, sweep.members[0], file.parent / "one"))
    copies(sweep, trained, file.parent / "runs")


def _numbers(low: float, high: float, count: int) -> str:
    return ", ".join(f"{low + (high - low) * i / max(count - 1, 1):.6f}" for i in range(count))


def copies(sweep: Sweep, trained: RunDir, out: Path) -> None:
    """The folders of all members, and the index of their results, with accuracies and terms moved at random."""
    random = Random(0)
    recipe = sweep.members[0].recipe
    values, *facts = take_numbers(read_results(Wanted(trained.path, *map(recipe.settings, ("probe", "analyze")))))
    index = ResultsIndex(out / sweep.name, take_numbers)
    kept = tuple(kept_name(name, recipe.settings(block)) for name, block in ((PROBE, "probe"), (ANALYSIS, "analyze")))
    names = (STATUS, ENVIRONMENT, PROBE, kept[0], ANALYSIS, kept[1], EPOCH_KNN, ENCODER)
    small = {name: trained.file(name).read_bytes() for name in (STATUS, ENVIRONMENT)}
    for member in sweep.members:
        folder = member_path(sweep, member, out)
        folder.mkdir(parents=True)
        (folder / RECIPE).write_text(as_run(sweep, member).to_yaml())
        for name in names:
            if trained.file(name).exists():
                (folder / name).write_bytes(small.get(name, b""))
        moved = [value and value * (1 + random.gauss(0, 0.05)) for value in values]
        states = results_index._states(folder, names)[:-1]
        index.lines["/".join([folder.name, *kept])] = (states, True, True, [moved, *facts])
    index._save()
    store_sweep(sweep, out / sweep.name)


if __name__ == "__main__":
    main()
