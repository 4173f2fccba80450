"""Attacks inside a threat model."""
