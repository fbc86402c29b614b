"""Answering: which version, with which features, by which process, and the log of what was answered."""
