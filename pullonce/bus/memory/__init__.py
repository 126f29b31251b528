"""The bus inside one event loop: the same contract, deterministic, with time that a test can own."""
