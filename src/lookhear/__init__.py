"""LookHear: point at a speaker, or describe them, and read what they say."""

__version__ = "0.1.0"
