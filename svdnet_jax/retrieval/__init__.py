"""Embeddings to numbers: distances, matches, CMC, mAP and mINP."""
