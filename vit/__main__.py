"""`python -m vit [NAME]`: prints a model, its parameter counts and the shape of its output."""

# ruff: noqa: T201  (printing is what it is for)

from __future__ import annotations

import argparse
import sys

PROG = "python -m vit"


def main() -> int:
    """Builds the named preset, runs it on a random image and prints what came out."""
    parser = argparse.ArgumentParser(prog=PROG, description="The scratch Vision Transformer and its presets.")
    parser.add_argument("name", nargs="?", default="vit_b_16", help="the preset to build (default: vit_b_16)")
    parser.add_argument("--img-size", type=int, default=224, help="in pixels (default: 224)")
    parser.add_argument("--list", action="store_true", help="print the presets and stop")
    options = parser.parse_args()

    from vit.presets import PRESETS  # noqa: PLC0415  (torch takes seconds to import)

    if options.list:
        for name, preset in PRESETS.items():
            print(f"{name}  {', '.join(f'{key}={value}' for key, value in preset._asdict().items())}")
        return 0
    if options.name not in PRESETS:
        print(f"{PROG}: unknown preset {options.name!r}; there are {', '.join(PRESETS)}", file=sys.stderr)
        return 2

    import torch  # noqa: PLC0415

    from vit.model import ViT  # noqa: PLC0415

    try:
        model = ViT(img_size=options.img_size, **PRESETS[options.name]._asdict())
    except ValueError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    print(model)
    sizes = [p.numel() for p in model.parameters()]
    trainable = [p.numel() for p in model.parameters() if p.requires_grad]
    print(f"{sum(sizes):,} total parameters.")
    print(f"{sum(trainable):,} training parameters.")
    with torch.no_grad():
        output = model.eval()(torch.randn(1, 3, options.img_size, options.img_size))
    print(f"Output shape: {tuple(output.shape)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
