"""The built-in pedestrians."""
