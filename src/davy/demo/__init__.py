"""The demo: a real year of flights taken through the whole route, in front of your eyes."""
