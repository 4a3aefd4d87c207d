"""Eyvan: live audio stages in Matrix rooms."""

__version__ = "0.1.0"
