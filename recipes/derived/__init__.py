"""What `more_tasks.py` makes of corpora that are there."""
