"""Engines train jobs inside one worker process."""
