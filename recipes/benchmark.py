"""Speed on this machine, as figures that can be compared: medians of several runs, ratios to a rival in the same run.

What:   heads: meta-training of every head at meta-batch 32 beside the same head driven one episode at a time; adapting: beside
        encoding the same texts and beside fitting a logistic regression; encoding: beside sentence-transformers; learning: an
        encoder that learns beside a bare PyTorch loop on the same batches; processes: two beside one; start: of the package.
        finetuning (only where named): accuracy beside adapting, logistic regression and the bare encoder, on two corpora of --tasks_dir.
Needs:  nothing but the installation; nothing else that keeps the machine busy.
Launch: python recipes/benchmark.py
        python recipes/benchmark.py encoding learning processes --repeats 7
        python recipes/benchmark.py finetuning --tasks_dir folder/of/dev/corpora --model runs/quickstart
"""

import argparse
import subprocess
import sys

from benchmarks import encoder, finetuning, heads
from benchmarks.clock import clock

import metatext as mt

PARTS = ("heads", "adapting", "encoding", "learning", "processes", "start")


def start(repeats: int) -> None:
    """Print what importing the package and asking for help take."""

    def run(*arguments: str) -> float:
        return clock(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True), repeats)

    print(f"import metatext: {run('-c', 'import metatext') - run('-c', 'pass'):.3f} s above bare Python")
    print(f"metatext --help: {run('-m', 'metatext', '--help'):.3f} s")
    print(f"recipes/adapt.py --help: {run('recipes/adapt.py', '--help'):.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"what to measure: {', '.join(PARTS)} [all of these], finetuning"
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median is given [5]")
    parser.add_argument(
        "--tasks_dir", help="of finetuning: folder with the corpora financial_phrasebank and trec, one folder each"
    )
    parser.add_argument("--model", default="gp", help="of finetuning: a saved head, or the name of one that is untrained [gp]")
    parser.add_argument(
        "--output_dir", default="runs/benchmark", help="of finetuning: its cells; a second start goes on [runs/benchmark]"
    )
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in (*PARTS, "finetuning")]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}, finetuning")
    if "finetuning" in options.parts and not options.tasks_dir:
        parser.error("finetuning needs --tasks_dir: a folder with the corpora financial_phrasebank and trec, one folder each")
    embedded, repeats = mt.Encoder.load("embedded"), options.repeats
    calls = {
        "heads": lambda: heads.training(embedded, repeats),
        "adapting": lambda: heads.adaptation(embedded, repeats),
        "encoding": lambda: encoder.encoding(embedded, repeats),
        "learning": lambda: encoder.learning(repeats),
        "processes": lambda: encoder.processes(repeats),
        "start": lambda: start(repeats),
        "finetuning": lambda: finetuning.measure(options.model, options.tasks_dir, options.output_dir),
    }
    for part in options.parts or PARTS:
        calls[part]()


if __name__ == "__main__":
    main()
