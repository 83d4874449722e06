"""Settings of a run: their classes, what refuses and stores them, and presets."""
