"""Moving traffic between versions: nothing else in Davy does."""
