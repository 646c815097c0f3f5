"""The stages of a sweep, each composed from the floors below."""
