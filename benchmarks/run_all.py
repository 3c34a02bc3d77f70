"""All benchmarks of the CPU, one after the other: `make bench`, `make bench-check` and `make bench-baseline`.

    python benchmarks/run_all.py [--quick] [--only NAME ...] [--threads 2] [--out DIR]
        [--check BASELINE.json | --store BASELINE.json]

A script's output also goes to OUT/NAME.txt, and its numbers to OUT/NAME.json. `--store` makes a baseline of the ratios;
`--check` compares with one and exits with 1 if any ratio is worse by more than its noise. A baseline is of the quick
set: the same sizes are measured again. Measure on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from comparing import Comparison, compare
from measuring import print_table

HERE = Path(__file__).resolve().parent


class Benchmark(NamedTuple):
    """A script with its arguments, and those of the quick set; None if it is not part of it."""

    name: str
    script: str
    arguments: Sequence[str]
    quick: Sequence[str] | None


BENCHMARKS = (
    Benchmark("startup", "startup", [], ["--images", "2000", "--repetitions", "5"]),
    Benchmark("augment", "augment", [], []),
    Benchmark("losses", "losses", [], ["--batches", "1024", "--widths", "2048", "--seconds", "0.3"]),
    Benchmark("pretrain-width-16", "pretrain_vs_lightly", ["--width", "16"], ["--width", "16", "--repetitions", "3"]),
    Benchmark(
        "pretrain-width-64", "pretrain_vs_lightly",
        ["--width", "64", "--steps", "2", "--repetitions", "3"],
        None,
    ),
    Benchmark(
        "streaming", "streaming", [],
        ["--width", "8", "--batch-size", "64", "--images", "512", "--steps", "8", "--repetitions", "3"],
    ),
    Benchmark("step-choices-width-16", "step_choices", ["--width", "16"], None),
    Benchmark(
        "step-choices-width-64", "step_choices",
        ["--width", "64", "--steps", "1", "--repetitions", "4", "--no-gradients"],
        None,
    ),
    Benchmark("step-choices-small", "step_choices", ["--encoder", "small", "--width", "16", "--steps", "30"], None),
    Benchmark("wide-batches", "wide_batches", [], None),
    Benchmark("features", "features", [], ["--train", "20000", "--test", "4000"]),
    Benchmark(
        "terms", "terms",
        ["--images", "300", "--repetitions", "3"],
        ["--images", "100", "--repetitions", "3"],
    ),
    Benchmark(
        "concentration", "concentration",
        ["--images", "100", "300", "--pairs", "100"],
        ["--images", "100", "--pairs", "0", "--repetitions", "3"],
    ),
    Benchmark("analysis", "analysis", ["--images", "2000"], None),
    Benchmark("interval-coverage", "interval_coverage", [], None),
    Benchmark("type-1-error", "type_1_error", [], None),
    Benchmark("scaling", "scaling", ["--figure", "{out}/scaling.svg"], ["--quick"]),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and smaller sizes")
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    against = parser.add_mutually_exclusive_group()
    against.add_argument("--check", type=Path, metavar="BASELINE.json", help="compare the quick set with a baseline")
    against.add_argument("--store", type=Path, metavar="BASELINE.json", help="make a baseline of the quick set")
    options = parser.parse_args()
    options.quick = options.quick or options.check is not None or options.store is not None
    options.out.mkdir(parents=True, exist_ok=True)
    if options.check and not options.check.exists():
        sys.exit(f"{options.check} does not exist: make bench-baseline stores one")
    baseline = json.loads(options.check.read_text(encoding="utf-8")) if options.check else None
    results, failed = run(options)
    if options.store and not failed:
        store(options.store, results)
    worse = 0
    if baseline is not None:
        chosen = {name: held for name, held in baseline.items() if name in options.only}
        worse = show(compare(chosen, results), chosen, results)
    if failed:
        print(f"failed: {', '.join(failed)}")
    sys.exit(1 if failed or worse else 0)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """What each script wrote, and the names of those that failed."""
    results, failed = {}, []
    for benchmark in BENCHMARKS:
        arguments = benchmark.quick if options.quick else benchmark.arguments
        if arguments is None or benchmark.name not in options.only:
            continue
        written = options.out / f"{benchmark.name}.json"
        written.unlink(missing_ok=True)
        began = time.perf_counter()
        print(f"── {benchmark.name}", flush=True)
        if run_one(benchmark, [part.format(out=options.out) for part in arguments], options, written):
            results[benchmark.name] = json.loads(written.read_text(encoding="utf-8"))
        else:
            failed.append(benchmark.name)
        print(f"   {time.perf_counter() - began:.0f} s\n", flush=True)
    return results, failed


def run_one(benchmark: Benchmark, arguments: Sequence[str], options: argparse.Namespace, written: Path) -> bool:
    command = [sys.executable, str(HERE / f"{benchmark.script}.py"), *arguments]
    command += ["--threads", str(options.threads), "--json", str(written)]
    if benchmark.script == "pretrain_vs_lightly" and importlib.util.find_spec("lightly") is None:
        print("lightly is not installed (pip install -e '.[benchmark]'): cssl alone")
        command.append("--no-lightly")
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process,
        written.with_suffix(".txt").open("w", encoding="utf-8") as log,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line)
    return process.returncode == 0 and written.exists()


def store(path: Path, results: dict[str, Any]) -> None:
    """The ratios and the machine of every result that has ratios."""
    kept = {
        name: {"machine": result["machine"], "ratios": result["ratios"]}
        for name, result in results.items()
        if result.get("ratios")
    }
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"baseline {path}")


def show(comparisons: Sequence[Comparison], baseline: dict[str, Any], results: dict[str, Any]) -> int:
    """A line for each ratio; returns how many are worse."""
    for name in ("processor", "torch"):
        before, now = (
            {result["machine"][name] for result in side.values() if "machine" in result} for side in (baseline, results)
        )
        if before != now:
            print(f"note: {name} {', '.join(sorted(before))} → {', '.join(sorted(now))}")
    rows = []
    for found in comparisons:
        allowed = "" if found.tolerance is None else f"{100 * found.tolerance:.0f} %"
        change = "" if found.change is None else f"{100 * (found.change - 1):+.0f} %"
        ratios = ["" if value is None else f"{value:.3g}" for value in (found.before, found.now)]
        verdict = found.verdict + (f" ({found.reason})" if found.reason else "")
        rows.append([f"{found.benchmark}: {found.name}", *ratios, change, allowed, verdict])
    print_table(["", "baseline", "now", "better by", "noise", ""], rows)
    worse = sum(found.verdict == "worse" for found in comparisons)
    print(f"\n{worse} of {len(comparisons)} ratios are worse than the baseline by more than their noise")
    return worse


if __name__ == "__main__":
    main()
