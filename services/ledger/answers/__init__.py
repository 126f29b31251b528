"""Questions → answers: history, statistics, explanations, what is in flight."""
