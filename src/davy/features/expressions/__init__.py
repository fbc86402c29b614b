"""Derived features: a function is traced into nodes, nodes are stored as JSON, a row kernel is generated from them.

nodes -> symbols, functions (what a user writes) -> trace -> operations (what each node means) -> compiler (the kernel).
"""
