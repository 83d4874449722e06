"""One file for each question a user asks, run as ``python -m experiments.NAME``."""
