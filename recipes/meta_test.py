"""Measure a trained head on unseen tasks, beside baselines on the same episodes.

What:   mean and 95 % interval per task (over its episodes) and over the tasks; the untrained head, label names alone,
        nearest centroid and logistic regression on the same features; tables on the terminal, figures as JSON.
Needs:  a folder that meta_train.py wrote, and tasks that it has not seen.
Launch: python recipes/meta_test.py --model runs/quickstart --tasks starter/test --n_way 10 --fewer_ways --n_query 5
        python recipes/meta_test.py recipes/configs/banking77.yaml --model runs/intents --tasks_dir path/to/corpora \\
            --class_splits path/to/corpora/intent_banking77/class_splits.json
"""

from metatext.cli import run

if __name__ == "__main__":
    run("test", description=__doc__)
