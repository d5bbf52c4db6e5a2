"""Constants of the project."""

IMAGE_SIZE = 32
PATCH_SIZE = 4
EMBED_DIM = 256
DEPTH = 6
HEADS = 8
MLP_DIM = 512
CLASSES = 100
