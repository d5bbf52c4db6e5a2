"""A script: the arguments of its command line are the model's."""

import argparse

from common import Whole


def get_args():
    parser = argparse.ArgumentParser(description="Trains a ViT")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--image_size", type=int, default=28)
    parser.add_argument("--patch_size", type=int, default=4)
    parser.add_argument("--n_channels", type=int, default=1)
    parser.add_argument("--embed_dim", type=int, default=96)
    parser.add_argument("--n_attention_heads", type=int, default=4)
    parser.add_argument("--forward_mul", type=int, default=2)
    parser.add_argument("--n_layers", type=int, default=6)
    parser.add_argument("--n_classes", type=int, default=10)
    parser.add_argument("--no_cuda", action="store_true")
    return parser.parse_args()


class ViT(Whole):
    def __init__(self, args):
        super().__init__(
            args.image_size, args.patch_size, args.n_channels, args.embed_dim, args.n_layers, args.n_attention_heads,
            args.forward_mul * args.embed_dim, args.n_classes,
        )  # fmt: skip


def main():
    args = get_args()
    print(ViT(args))


if __name__ == "__main__":
    main()
