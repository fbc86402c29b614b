"""What teams bring along: runs, models and their files from other tracking servers, copied whole."""
