"""Batches to a trained state: the step, the optimiser of each phase, the RRI loop and its checkpoints."""
