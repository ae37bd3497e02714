"""What metatext can do, as figures that can be compared: speed on this machine, and accuracy beside SetFit.

What:   heads: meta-training of every head at meta-batch 32 beside the same head driven one episode at a time; adapting: beside
        encoding the same texts and beside fitting a logistic regression; encoding: beside sentence-transformers; learning: an
        encoder that learns beside a bare PyTorch loop on the same batches; processes: two beside one; start: of the package.
        setfit: fits SetFit to three episodes of each of eleven unseen tasks at 1, 4, 8 and 16 examples per class; hours: a file for
        each fit, and a second start goes on. finetuned: the same of heads that take gradient steps on these episodes. accuracy: heads
        and fast baselines on these very episodes and on many more: paired differences, calibration, the time that adapting takes
        beside fitting, pictures; prints what is there, also while setfit still runs. abstention: are rows that belong to no class told
        apart? finetuning: gradient steps on two tasks beside adapting, logistic regression and the bare encoder. predictions: does a
        released head answer as its metrics.json says?
Needs:  the first six nothing but the installation, and nothing else that keeps the machine busy. setfit: metatext[bench]. setfit,
        finetuned, accuracy, abstention, finetuning: a folder with the corpora (--tasks_dir), one folder each; the last two those of their own.
Launch: python recipes/benchmark.py
        python recipes/benchmark.py encoding learning processes --repeats 7
        python recipes/benchmark.py setfit --tasks_dir path/to/corpora --output_dir runs/benchmark
        python recipes/benchmark.py accuracy abstention --tasks_dir path/to/corpora --output_dir runs/benchmark --models runs/mine gp
        python recipes/benchmark.py predictions --models metatext-minilm-general metatext-minilm-intent
"""

import subprocess
import sys

from benchmarks import abstention, accuracy, corpora, encoder, finetuning, heads, predictions, rival
from benchmarks.clock import clock
from benchmarks.options import SPEED, parse

import metatext as mt
from metatext.launch import best_device
from metatext.settings import MetatextError


def start(repeats: int) -> None:
    """Print what importing the package and asking for help take."""

    def run(*arguments: str) -> float:
        return clock(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True), repeats)

    print(f"import metatext: {run('-c', 'import metatext') - run('-c', 'pass'):.3f} s above bare Python")
    print(f"metatext --help: {run('-m', 'metatext', '--help'):.3f} s")
    print(f"recipes/adapt.py --help: {run('recipes/adapt.py', '--help'):.3f} s")


def main() -> None:
    options = parse(__doc__)
    folder, shots, n_draws, repeats = options.output_dir, sorted(options.shots), options.draws, options.repeats
    embedded = mt.Encoder.load("embedded")
    short = lambda: mt.Encoder.load(mt.EncoderConfig("embedded", max_length=options.max_tokens)).to(best_device())  # noqa: E731
    load = lambda: corpora.load(options.tasks_dir, options.tasks, options.max_rows)  # noqa: E731
    both = lambda: corpora.load(options.tasks_dir, (abstention.TASK, abstention.OUTSIDE))  # noqa: E731
    calls = {
        "heads": lambda: heads.training(embedded, repeats),
        "adapting": lambda: heads.adaptation(embedded, repeats),
        "encoding": lambda: encoder.encoding(embedded.to(best_device()), repeats),
        "learning": lambda: encoder.learning(repeats),
        "processes": lambda: encoder.processes(repeats),
        "start": lambda: start(repeats),
        "setfit": lambda: rival.measure(rival.SETFIT, short(), load(), shots, n_draws, folder),
        "finetuned": lambda: [
            rival.measure(rival.finetuned(column, model), short(), load(), shots, n_draws, folder)
            for column, model in accuracy.load(options.models, options.max_tokens).items()
        ],
        "accuracy": lambda: accuracy.run(options.models, load(), short(), shots, n_draws, options.n_episodes, folder),
        "abstention": lambda: abstention.run(options.models, *both(), embedded.to(best_device()), folder),
        "finetuning": lambda: finetuning.measure(options.models[0], options.tasks_dir, folder),
        "predictions": lambda: predictions.predictions(options.models),
    }
    for part in options.parts or SPEED:
        try:
            calls[part]()
        except MetatextError as error:
            sys.exit(f"benchmark {part}: {error}")


if __name__ == "__main__":
    main()
