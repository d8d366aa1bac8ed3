"""The machine learning of r1kit: pure functions and small classes, no orchestration."""

__version__ = "0.1.0"
