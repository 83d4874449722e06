"""The local page of a run: search, thresholds, hard queries, two embeddings side by side, a map."""
