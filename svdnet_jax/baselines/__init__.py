"""What SVDNet is compared with, as pure functions: see `orthogonality`, `truncated_svd` and `pcanet`."""
