"""Models, their versions and aliases; feature sets and training sets by digest; and the way back from a version to its commit."""
