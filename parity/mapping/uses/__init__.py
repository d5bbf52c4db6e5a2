"""What a model's tensors are used for, seen by running it.

Read `operations`, `ways`, `axes`, `calls`, `products`, `following`, `lineages`, `noting`, `patterns`, `attentions`, and
`gathering`, which lists them.
"""
