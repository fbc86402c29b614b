"""The event log: one writer stamps, writes ahead, applies and acknowledges; tables follow in the background."""
