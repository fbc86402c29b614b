"""The parts put into processes: one that keeps the others alive, one that answers, one for the log, one for each version."""
