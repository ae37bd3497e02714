"""Meta-train a head on many text tasks.

What:   episodes drawn from the tasks, summed meta-loss backpropagated through the head; the head that does best on unseen
        tasks is kept, with checkpoints to go on from, metrics.json and a learning curve.
Needs:  nothing for the embedded starter tasks and encoder; a folder of corpora, or Hub ids, for more.
Launch: accelerate launch recipes/meta_train.py recipes/configs/quickstart.yaml
        accelerate launch recipes/meta_train.py recipes/configs/intents.yaml --tasks_dir path/to/corpora
A run that was stopped goes on when the same command is given again.
"""

from metatext.cli import run

if __name__ == "__main__":
    run("train", description=__doc__)
