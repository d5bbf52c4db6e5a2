"""What cannot be built without more being said, or at all."""

from abc import ABC, abstractmethod

import torch
from common import Block, Embedding, Head, Stack, Whole
from torch import nn


class Vocabulary(Whole):
    def __init__(self, vocab_size, image_size, patch_size, dim, depth, heads, mlp_dim, num_classes):
        super().__init__(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)
        self.words = nn.Embedding(vocab_size, dim)


class Backbone(nn.Module):
    def __init__(self, backbone: nn.Module, dim, num_classes):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x):
        return self.head(self.backbone(x))


class Parts(nn.Module):
    def __init__(self, patch_embedding, transformer_encoder, classification_head):
        super().__init__()
        self.parts = nn.Sequential(patch_embedding, transformer_encoder, classification_head)

    def forward(self, x):
        return self.parts(x)


class Tokenizer(Whole):
    def __init__(
        self, tokenizer, image_size=224, patch_size=16, dim=768, depth=12, heads=12, mlp_dim=3072, num_classes=1000
    ):
        super().__init__(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)
        self.words = nn.Embedding(len(tokenizer), dim)


class Checkpoint(Whole):
    def __init__(self, checkpoint_path):
        super().__init__(224, 16, 3, 768, 12, 12, 3072, 1000)
        self.load_state_dict(torch.load(checkpoint_path))


class MissingFile(Whole):
    def __init__(self, image_size=224, patch_size=16, dim=768, depth=12, heads=12, mlp_dim=3072, num_classes=1000):
        super().__init__(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)
        self.load_state_dict(torch.load("/nowhere/vit_base_p16.pth"))


class Nameless(Whole):
    def __init__(self, *args):
        image, patch, dim, depth, heads, mlp, classes = args
        super().__init__(image, patch, 3, dim, depth, heads, mlp, classes)


class Patch14(Whole):
    def __init__(self, image_size, embed_dim, depth, num_heads, mlp_dim, num_classes):
        assert image_size % 14 == 0, f"an image of {image_size} pixels is not divisible into patches of 14"
        super().__init__(image_size, 14, 3, embed_dim, depth, num_heads, mlp_dim, num_classes)


class Depth6(Whole):
    def __init__(self, image_size, patch_size, embed_dim, num_heads, mlp_dim, num_classes):
        super().__init__(image_size, patch_size, 3, embed_dim, 6, num_heads, mlp_dim, num_classes)


class Fixed(Whole):
    def __init__(self):
        super().__init__(64, 4, 3, 192, 6, 3, 768, 200)


class SevenHeads(Whole):
    def __init__(self, image_size, patch_size, embed_dim, depth, mlp_dim, num_classes):
        super().__init__(image_size, patch_size, 3, embed_dim, depth, 7, mlp_dim, num_classes)


class Mistaken(Whole):
    def __init__(self, image_size, patch_size, hidden, depth, heads, mlp_dim, num_classes):
        super().__init__(image_size, patch_size, 3, hiden, depth, heads, mlp_dim, num_classes)  # noqa: F821  (the mistake)


class TooEarly(nn.Module):
    def __init__(self, image_size, patch_size, dim, depth, heads, mlp_dim, num_classes):
        self.net = Whole(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)


class NeedsCuda(Whole):
    def __init__(self, image_size, patch_size, dim, depth, heads, mlp_dim, num_classes):
        super().__init__(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)
        if not torch.cuda.is_available() or torch.cuda.device_count() < 64:
            raise RuntimeError("no CUDA GPUs are available for 64 ranks")


class Abstract(ABC, nn.Module):
    def __init__(self, image_size, patch_size, dim):
        super().__init__()
        self.embedding = Embedding(image_size, patch_size, 3, dim)
        self.encoder = self.make_encoder()

    @abstractmethod
    def make_encoder(self): ...


class NoModule:
    def __init__(self, image_size, patch_size, dim, depth, heads, mlp_dim, num_classes):
        self.net = Whole(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)

    def forward(self, x):
        return self.net(x)


class UnknownKey(Stack):
    def __init__(self, config):
        super().__init__(
            Embedding(config["image_size"], config["patch_size"], 3, config["dim"]),
            [Block(config["dim"], config["heads"], config["mlp_dim"]) for _ in range(config["depth"])],
            Head(config["dim"], config["num_classes"]),
        )
        self.adapter = nn.Linear(config["dim"], config["adapter_rank"])


class UnknownAttribute(Stack):
    def __init__(self, cfg):
        super().__init__(
            Embedding(cfg.image_size, cfg.patch_size, 3, cfg.dim),
            [Block(cfg.dim, cfg.heads, cfg.mlp_dim) for _ in range(cfg.depth)],
            Head(cfg.dim, cfg.num_classes),
        )
        self.prompts = nn.Parameter(torch.zeros(cfg.prompt_length, cfg.dim))


def forgets_to_return(image_size, patch_size, dim, depth, heads, mlp_dim, num_classes):
    Whole(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)


def with_optimizer(image_size, patch_size, dim, depth, heads, mlp_dim, num_classes):
    model = Whole(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def train(model, train_loader, optimizer, epochs=10):
    for _ in range(epochs):
        for images, labels in train_loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model


def by_registered_name(name):
    return {"swin_t": Whole, "convnext_b": Whole}[name](32, 8, 3, 48, 2, 4, 96, 10)


SIZES = {"image_size": 224, "patch_size": 16}
