"""Protocols that others speak, translated thinly."""
