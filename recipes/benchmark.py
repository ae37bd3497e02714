"""What metatext can do, as figures that can be compared: speed on this machine, and accuracy beside SetFit.

What:   heads: meta-training of every head at meta-batch 32 beside the same head driven one episode at a time; adapting: beside
        encoding the same texts and beside fitting a logistic regression; encoding: beside sentence-transformers; learning: an
        encoder that learns beside a bare PyTorch loop on the same batches; processes: two beside one; start: of the package.
        setfit: fits SetFit to three episodes of each of eleven unseen tasks at 1, 4, 8 and 16 examples per class; hours: a file for
        each fit, and a second start goes on. accuracy: heads and fast baselines on these very episodes and on many more: paired
        differences, calibration, the time that adapting takes beside fitting SetFit, pictures; prints what is there, also while
        setfit still runs. abstention: are rows that belong to no class told apart?
Needs:  the first six nothing but the installation, and nothing else that keeps the machine busy. setfit: metatext[bench]. setfit,
        accuracy and abstention: a folder with the corpora (--tasks_dir), one folder each; abstention those of its two.
Launch: python recipes/benchmark.py
        python recipes/benchmark.py encoding learning processes --repeats 7
        python recipes/benchmark.py setfit --tasks_dir path/to/corpora --output_dir runs/benchmark
        python recipes/benchmark.py accuracy abstention --tasks_dir path/to/corpora --output_dir runs/benchmark --models runs/mine gp
"""

import argparse
import subprocess
import sys

from benchmarks import abstention, accuracy, corpora, encoder, heads, rival
from benchmarks.clock import clock

import metatext as mt
from metatext.config import MetatextError

SPEED = ("heads", "adapting", "encoding", "learning", "processes", "start")
CORPORA = ("setfit", "accuracy", "abstention")


def start(repeats: int) -> None:
    """Print what importing the package and asking for help take."""

    def run(*arguments: str) -> float:
        return clock(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True), repeats)

    print(f"import metatext: {run('-c', 'import metatext') - run('-c', 'pass'):.3f} s above bare Python")
    print(f"metatext --help: {run('-m', 'metatext', '--help'):.3f} s")
    print(f"recipes/adapt.py --help: {run('recipes/adapt.py', '--help'):.3f} s")


def parse() -> argparse.Namespace:
    """The settings; a mistake ends in one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = (*SPEED, *CORPORA)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"what to measure: {', '.join(known)} [the first six]")
    parser.add_argument("--repeats", type=int, default=5, help="of speed: runs of which the median is given [5]")
    group = parser.add_argument_group("of the parts setfit, accuracy and abstention")
    add = group.add_argument
    add("--tasks_dir", help="folder of corpora, one folder each")
    add("--tasks", nargs="+", default=corpora.TASKS, metavar="X", help=f"those to measure [{' '.join(corpora.TASKS)}]")
    add("--models", nargs="+", default=["gp"], metavar="X", help="heads: saved folders, Hub repos, or names (untrained) [gp]")
    add("--output_dir", default="runs/benchmark", help="where results go, and fits of SetFit are looked for [runs/benchmark]")
    add("--shots", nargs="+", type=int, default=[0, 1, 4, 8, 16], metavar="K", help="examples per class [0 1 4 8 16]")
    add("--draws", type=int, default=3, help="episodes of a task and number of shots that SetFit is fitted to [3]")
    add("--n_episodes", type=int, default=300, help="the same of the table without SetFit; 0: without that table [300]")
    add("--max_tokens", type=int, default=64, help="what all methods read of a text; abstention: all that encoders can [64]")
    options = parser.parse_args()
    for part in options.parts:
        if part not in known:
            parser.error(f"unknown part {part!r}; known: {', '.join(known)}")
        if part in CORPORA and not options.tasks_dir:
            wanted = (abstention.TASK, abstention.OUTSIDE) if part == "abstention" else options.tasks
            parser.error(f"{part} needs --tasks_dir, a folder of corpora with one folder each: {', '.join(wanted)}")
    for name, low in (("repeats", 1), ("draws", 1), ("n_episodes", 0), ("max_tokens", 8)):
        if getattr(options, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(options, name)}")
    if min(options.shots) < 0 or len(set(options.shots)) < len(options.shots):
        parser.error(f"--shots must be different numbers from 0 on, got {' '.join(map(str, options.shots))}")
    return options


def main() -> None:
    options = parse()
    folder, shots, n_draws, repeats = options.output_dir, sorted(options.shots), options.draws, options.repeats
    embedded = mt.Encoder.load("embedded")
    short = lambda: mt.Encoder.load(mt.EncoderConfig("embedded", max_length=options.max_tokens))  # noqa: E731
    load = lambda *names: corpora.load(options.tasks_dir, names or options.tasks)  # noqa: E731
    calls = {
        "heads": lambda: heads.training(embedded, repeats),
        "adapting": lambda: heads.adaptation(embedded, repeats),
        "encoding": lambda: encoder.encoding(embedded, repeats),
        "learning": lambda: encoder.learning(repeats),
        "processes": lambda: encoder.processes(repeats),
        "start": lambda: start(repeats),
        "setfit": lambda: rival.measure(short(), load(), shots, n_draws, folder),
        "accuracy": lambda: accuracy.run(options.models, load(), short(), shots, n_draws, options.n_episodes, folder),
        "abstention": lambda: abstention.run(options.models, *load(abstention.TASK, abstention.OUTSIDE), embedded, folder),
    }
    for part in options.parts or SPEED:
        try:
            calls[part]()
        except MetatextError as error:
            sys.exit(f"benchmark {part}: {error}")


if __name__ == "__main__":
    main()
