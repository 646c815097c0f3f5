"""The search: its space, its schedule, its study and its loop."""
