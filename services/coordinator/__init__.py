"""The coordinator: folds the log and orders work."""
