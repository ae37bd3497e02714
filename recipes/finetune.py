"""Fine-tune a classifier on a task of your own, from what a head makes of it in one forward pass.

What:   labelled examples + a head -> a saved classifier: gradient steps on low-rank updates of the encoder, on all of its weights
        (--what full), or on the task's parameters alone, on frozen features, where there are very many rows (params). A part of the
        examples is held out, or rows of your own (--eval_examples) are: they stop training, and the adapted model is kept where
        fine-tuning does not answer them better. Predictions for a second file.
Needs:  a folder that meta_train.py wrote, a head on the Hub, or `--model gp`.
Launch: accelerate launch recipes/finetune.py --model runs/quickstart --examples tickets.csv --output_dir runs/tickets
        accelerate launch --config_file recipes/launch/two_cpu_processes.yaml recipes/finetune.py --model gp --what full --examples tickets.csv
Processes share every step: two with --per_device_train_batch_size 16 take the steps of one with 32. A checkpoint is kept after every epoch: the
same command goes on from there.
"""

from metatext.cli import run

if __name__ == "__main__":
    run("finetune", description=__doc__)
