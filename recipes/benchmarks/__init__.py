"""The parts of recipes/benchmark.py."""
