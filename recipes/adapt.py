"""Make a classifier for a new task from a few labelled examples, in one forward pass.

What:   examples (a text and a label per row) + a trained head -> a saved classifier; predictions for a second file.
Needs:  a folder that meta_train.py wrote.
Launch: python recipes/adapt.py --model runs/quickstart --examples tickets.csv --predict new_tickets.csv --output_dir runs/tickets
"""

from metatext.cli import run

if __name__ == "__main__":
    run("adapt", description=__doc__)
