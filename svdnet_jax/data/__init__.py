"""Files to batches: splits, data sets, the synthetic pedestrians and the stream of samples."""
