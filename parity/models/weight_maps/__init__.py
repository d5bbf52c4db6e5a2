"""Which tensor of the reference is which of the candidate: entries, their written form, and what a map has to be.

Read `entries`, `written_map`, `weight_map`, `bijection` and `expansion`.
"""
