"""Fixtures of the tests that run with the real thing."""

from tests.helpers.synapse import homeserver, synapse_python

__all__ = ["homeserver", "synapse_python"]
