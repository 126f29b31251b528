"""Processes: how one runs, is found, is kept running, and how all of them run on one machine."""
