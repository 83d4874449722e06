"""Weights of other programs, read into the networks here."""
