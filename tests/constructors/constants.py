"""The sizes are constants of the module, read by the class or the defaults of its arguments."""

from common import Whole

IMG_SIZE = 224
PATCH_SIZE = 16
IN_CHANNELS = 3
EMBED_DIM = 768
DEPTH = 12
NUM_HEADS = 12
MLP_DIM = 4 * EMBED_DIM
NUM_CLASSES = 1000
BATCH_SIZE = 512
LEARNING_RATE = 3e-4


class ViT(Whole):
    def __init__(self):
        super().__init__(IMG_SIZE, PATCH_SIZE, IN_CHANNELS, EMBED_DIM, DEPTH, NUM_HEADS, MLP_DIM, NUM_CLASSES)


class ByDefault(Whole):
    def __init__(
        self, img_size=IMG_SIZE, patch_size=PATCH_SIZE, embed_dim=EMBED_DIM, depth=DEPTH, num_heads=NUM_HEADS,
        mlp_dim=MLP_DIM, num_classes=NUM_CLASSES,
    ):  # fmt: skip
        super().__init__(img_size, patch_size, IN_CHANNELS, embed_dim, depth, num_heads, mlp_dim, num_classes)


class OnlyTheClasses(Whole):
    def __init__(self, n_classes):
        super().__init__(IMG_SIZE, PATCH_SIZE, IN_CHANNELS, EMBED_DIM, DEPTH, NUM_HEADS, MLP_DIM, n_classes)


class Runs(Whole):
    """Reads a constant when it is run."""

    def __init__(self, img_size, patch_size, embed_dim, depth, num_heads, mlp_dim):
        super().__init__(img_size, patch_size, IN_CHANNELS, embed_dim, depth, num_heads, mlp_dim, NUM_CLASSES)

    def forward(self, x):
        return super().forward(x)[:, :NUM_CLASSES]
