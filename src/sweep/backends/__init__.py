"""Backends say where engines run."""
