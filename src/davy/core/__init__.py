"""Nouns and pure rules: times, fields, digests, and the only source of time and randomness. No I/O."""
