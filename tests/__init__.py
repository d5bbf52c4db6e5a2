"""Tests of the scratch ViT and of the harness."""
