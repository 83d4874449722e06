"""Runs: their folders, training from settings to report, and what is done with finished ones."""
