"""Measure trained heads on unseen tasks, beside each other and beside baselines, all on the same episodes.

What:   heads x shots x tasks: mean and 95 % interval per task (over its episodes) and over the tasks, paired differences to a
        reference, calibration (nll, Brier, ECE) and abstention (AUROC against rows of no class, risk-coverage) over all
        query rows; with the real label names and with "class 1", "class 2" ...; tables as they come, figures and the score of
        every episode as JSON, pictures with --plot. Baselines use the same features: the untrained head, label names alone, nearest centroid,
        nearest neighbours, mean of names and examples, logistic regression (also with the names as rows), and SetFit, which
        fine-tunes the encoder on every episode (--baselines setfit; needs metatext[bench], and patience or a GPU).
Needs:  a folder that meta_train.py wrote, or the name of a head (then untrained); tasks that it has not seen.
Launch: python recipes/meta_test.py --model runs/quickstart --tasks starter/test --n_way 10 --fewer_ways --n_query 5
        python recipes/meta_test.py --model runs/quickstart --heads ridge prototype --tasks starter/test --n_way 10 --fewer_ways \\
            --shots 0 1 4 8 --names real numbered --n_query 3 --plot --output runs/starter.json
        python recipes/meta_test.py recipes/configs/banking77.yaml --model runs/intents --tasks_dir path/to/corpora \\
            --class_splits path/to/corpora/intent_banking77/class_splits.json
"""

from metatext.cli import run

if __name__ == "__main__":
    run("test", description=__doc__)
