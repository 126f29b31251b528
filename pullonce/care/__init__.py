"""What becomes of a store after the pulls: what it still needs, what may go, and whether what it holds is right."""
