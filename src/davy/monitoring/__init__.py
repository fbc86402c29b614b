"""What serves, watched: it returns verdicts and changes nothing."""
