"""Models, their versions and aliases; feature sets and training sets by digest; and the way back from a version to its commit.

models.py registers, resolves and lists; reference.py reads `late@2`; signature.py turns values into a model's
row; definitions.py keeps feature sets and training sets; lineage.py walks back.
"""
