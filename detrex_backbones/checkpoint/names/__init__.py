"""Whose names a file has: wrappers, conventions, prefixes, and every reading of them."""
