"""What processes tell of themselves: metrics and spans."""
