"""Costs out, in formats that others read: one file a format."""
