"""Rows from a file or the Hub, dealt to splits and turned into tokens."""
