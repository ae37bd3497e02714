"""``python -m metatext`` is the console script."""

from .cli import main

main()
