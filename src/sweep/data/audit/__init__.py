"""Whether the rows are fit to train on, check by check."""
