"""The main job, shown."""
