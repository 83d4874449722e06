"""Data sets as they lie on disk, one file for each layout."""
