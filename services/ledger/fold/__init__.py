"""Events → rows: the fold, its tables and its file."""
