"""Real servers and made-up content for tests."""
