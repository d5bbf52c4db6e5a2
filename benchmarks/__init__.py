"""Benchmarks: the scratch ViT beside torchvision, and the cost of a check."""
