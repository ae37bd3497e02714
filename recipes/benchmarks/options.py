"""The command line of recipes/benchmark.py."""

import argparse

from . import abstention, corpora, finetuning

SPEED = ("heads", "adapting", "encoding", "learning", "processes", "start")
CORPORA = ("setfit", "finetuned", "accuracy", "abstention", "finetuning")
HEADS = ("predictions",)


def parse(description: str) -> argparse.Namespace:
    """The settings of the command line; a mistake ends in one line on standard error.

    Args:
        description: what ``--help`` begins with.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = (*SPEED, *CORPORA, *HEADS)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"what to measure: {', '.join(known)} [the first six]")
    parser.add_argument("--repeats", type=int, default=5, help="of speed: runs of which the median is given [5]")
    group = parser.add_argument_group("of the other parts")
    add = group.add_argument
    add("--tasks_dir", help="folder of corpora, one folder each")
    add("--tasks", nargs="+", default=corpora.TASKS, metavar="X", help=f"those to measure [{' '.join(corpora.TASKS)}]")
    add(
        "--max_rows",
        type=int,
        default=2500,
        help="of setfit, finetuned and accuracy: at most so many rows of a corpus, by class in proportion [2500]",
    )
    add("--models", nargs="+", default=["gp"], metavar="X", help="heads: saved folders, names, Hub repos; gp: untrained [gp]")
    add("--output_dir", default="runs/benchmark", help="where results go, and fits are looked for [runs/benchmark]")
    add("--shots", nargs="+", type=int, default=[0, 1, 4, 8, 16], metavar="K", help="examples per class [0 1 4 8 16]")
    add("--draws", type=int, default=3, help="episodes of a task and number of shots that are fitted to [3]")
    add("--n_episodes", type=int, default=300, help="the same of the table without SetFit; 0: without that table [300]")
    add("--max_tokens", type=int, default=64, help="what all methods read of a text; abstention: all that encoders can [64]")
    options = parser.parse_args()
    for part in options.parts:
        if part not in known:
            parser.error(f"unknown part {part!r}; known: {', '.join(known)}")
        if part in CORPORA and not options.tasks_dir:
            own = {"abstention": (abstention.TASK, abstention.OUTSIDE), "finetuning": finetuning.TASKS}
            wanted = own.get(part, options.tasks)
            parser.error(f"{part} needs --tasks_dir, a folder of corpora with one folder each: {', '.join(wanted)}")
    for name, low in (("repeats", 1), ("draws", 1), ("n_episodes", 0), ("max_tokens", 8)):
        if getattr(options, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(options, name)}")
    if options.max_rows < 100:
        parser.error(f"--max_rows must be at least 100, got {options.max_rows}")
    if min(options.shots) < 0 or len(set(options.shots)) < len(options.shots):
        parser.error(f"--shots must be different numbers from 0 on, got {' '.join(map(str, options.shots))}")
    return options
