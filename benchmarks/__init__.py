"""Benchmarks: the scratch ViT beside others, and what a check costs.

Every figure is a ratio of times that were measured in turn, in one process or one after the other, and is given with
its spread. `python -m benchmarks` makes them all and writes `docs/performance.md`.
"""
