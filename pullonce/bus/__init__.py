"""The bus: its ports, and two implementations of them under one contract."""
