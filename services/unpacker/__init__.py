"""The unpacker: turns layers into snapshots."""
