"""Answer the rows of a file with a classifier that adapt.py or finetune.py saved.

What:   a classifier + a file of rows -> a csv with the file's columns and the answers; figures where the rows are labelled.
Needs:  a folder that adapt.py or finetune.py wrote, or a repo on the Hub that one was pushed to.
Launch: python recipes/predict.py --model runs/tickets --predict new_tickets.csv --predictions answers.csv
"""

from metatext.cli import run

if __name__ == "__main__":
    run("predict", description=__doc__)
