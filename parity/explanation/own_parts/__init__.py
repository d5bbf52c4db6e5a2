"""What only the candidate has: layers, norms and steps that the reference lacks, as changes of the catalogue's kind.

Read `chains`, `norms`, `layers`, `attention`, `widths`, and `extras`, which asks the others.
"""
