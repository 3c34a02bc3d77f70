"""Start-up: seconds of commands that should answer at once, and of the second `cssl pretrain` on a folder of images.

    python benchmarks/startup.py [--images 5000] [--repetitions 9] [--pretrain-repetitions 3] [--json PATH]

Each command is its own process; they take turns. `python -c pass` and `python -c "import torch"` are the floor of any
program in Python, and of any that uses torch. Pretraining runs for a single step on drawn image files: cold with an
empty cache, warm with the cache of a run before. Its seconds are those of the whole process, from the start to the
finished run directory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring
from drawn_images import write_images

PASS, TORCH = 'python -c "pass"', 'python -c "import torch"'
TAB = (
    "import os; os.environ.update(_CSSL_COMPLETE='complete_zsh', _CSSL_COMPLETE_LINE={!r}); "
    "from cssl_cli.__main__ import main; main()"
)
COMMANDS = {
    PASS: ["-c", "pass"],
    TORCH: ["-c", "import torch"],
    "cssl --help": ["-m", "cssl_cli", "--help"],
    "cssl recipes": ["-m", "cssl_cli", "recipes"],
    "Tab: commands": ["-c", TAB.format("cssl pre")],
    "Tab: a recipe's fields": ["-c", TAB.format("cssl pretrain simclr-folder method.")],
    "Tab: a sweep's rows": ["-c", TAB.format("cssl sweep paper-pairs-cifar100 --only s")],
}


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--pretrain-repetitions", type=int, default=3, help="0 for none")
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    commands(report, options)
    if options.pretrain_repetitions:
        with tempfile.TemporaryDirectory() as name:
            second_start(report, options, Path(name))
    report.finish(options.json)


def commands(report: measuring.Report, options: argparse.Namespace) -> None:
    turns = {name: lambda arguments=arguments: python(*arguments) for name, arguments in COMMANDS.items()}
    seconds = measuring.alternate(turns, options.repetitions)
    rows = []
    for name, values in seconds.items():
        median = statistics.median(values)
        report.numbers[f"{name}, seconds"] = median
        rows.append([name, f"{median:.3f}"])
        if name.startswith("cssl"):
            for other in (PASS, TORCH):
                report.ratios[f"{name} over {other}"] = measuring.ratio(values, seconds[other], better="lower")
    measuring.print_table(["", "seconds"], rows)


def second_start(report: measuring.Report, options: argparse.Namespace, folder: Path) -> None:
    root = write_images(folder, options.images)
    filled, empty, out = folder / "filled", folder / "empty", folder / "runs"

    def pretrain(cache: Path) -> None:
        python(
            "-m", "cssl_cli", "pretrain", "simclr-folder", f"data.root={root}", "encoder={name: small, width: 16}",
            "train={steps: 1, batch_size: 128}", "optim.warmup_epochs=0", "--out", str(out), "--device", "cpu",
            cache=cache, threads=options.threads,
        )  # fmt: skip
        shutil.rmtree(out)

    def cold() -> None:
        shutil.rmtree(empty, ignore_errors=True)
        pretrain(empty)

    turns = {
        "cold cache": cold,
        "warm cache": lambda: pretrain(filled),
        TORCH: lambda: python("-c", "import torch"),
    }
    pretrain(filled)
    seconds = measuring.alternate(turns, options.pretrain_repetitions, warm_up=0)
    print(f"\ncssl pretrain of one step on {options.images:,} image files, from start to end")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    measuring.print_table(["", "seconds"], [[name, f"{median:.2f}"] for name, median in medians.items()])
    for name in ("cold cache", "warm cache"):
        title = f"first step of {options.images:,} files, {name}"
        report.numbers[f"{title}, seconds"] = medians[name]
        report.ratios[f"{title}, over {TORCH}"] = measuring.ratio(seconds[name], seconds[TORCH], better="lower")


def python(*arguments: str, cache: Path | None = None, threads: int | None = None) -> None:
    """Runs this interpreter with the arguments until it ends; its output is discarded."""
    environment = dict(os.environ)
    if cache is not None:
        environment["CSSL_CACHE"] = str(cache)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        sys.exit(f"python {' '.join(arguments)} failed:\n{done.stderr}")


if __name__ == "__main__":
    main()
