"""Scores and comparisons: arithmetic only."""
