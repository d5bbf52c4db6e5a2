"""What a model's own operations compute, as a formula: recorded, replayed, read and written.

Read `recording`, `replaying`, `terms`, `axes`, `reading`, `shapes`, `differing`, `letters` and `writing`.
"""
