"""What the name of an argument means: which of a ViT's sizes, rates and choices it may stand for.

A name is cut into words (`nEmbdDim2` into n, embd, dim), and rules read the words. They only say what is worth trying
first: what the tensors say about it comes in `probing`.
"""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHANNELS = 3  # of torchvision's models


def _grid(c: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the rows and columns of patches; sizes are numbers, or heights and widths."""
    (height, width), (rows, columns) = (
        size if isinstance(size, tuple) else (size, size) for size in (c["image_size"], c["patch_size"])
    )
    return height // rows, width // columns


def _pixels(c: Mapping[str, Any]) -> int:
    """Returns how many values a patch has."""
    patch = c["patch_size"]
    return int(c.get("in_channels", CHANNELS)) * (math.prod(patch) if isinstance(patch, tuple) else patch**2)


# what an argument may stand for, as a function of the reference's configuration
QUANTITIES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "image_size": lambda c: c["image_size"],
    "patch_size": lambda c: c["patch_size"],
    "num_layers": lambda c: c["num_layers"],
    "num_heads": lambda c: c["num_heads"],
    "hidden_dim": lambda c: c["hidden_dim"],
    "mlp_dim": lambda c: c["mlp_dim"],
    "mlp_ratio": lambda c: c["mlp_dim"] / c["hidden_dim"],
    "mlp_widths": lambda c: [c["mlp_dim"], c["hidden_dim"]],
    "num_classes": lambda c: c["num_classes"],
    "in_channels": lambda c: c.get("in_channels", CHANNELS),
    "representation_size": lambda c: c.get("representation_size"),
    "head_hidden": lambda c: c.get("representation_size") or c["hidden_dim"],
    "head_width": lambda c: c["hidden_dim"] // c["num_heads"],
    "num_patches": lambda c: math.prod(_grid(c)),
    "num_tokens": lambda c: math.prod(_grid(c)) + 1,
    "patches_per_side": lambda c: _grid(c)[0],
    "patch_vector": _pixels,
    "patch_stride": lambda c: c["patch_size"],
    "inner_width": lambda c: c["hidden_dim"],
    "key_heads": lambda c: c["num_heads"],
    "heads_of_blocks": lambda c: [c["num_heads"]] * c["num_layers"],
    "dropout": lambda c: c.get("dropout", 0.0),
    "attention_dropout": lambda c: c.get("attention_dropout", 0.0),
    "embedding_dropout": lambda c: c.get("dropout", 0.0),
    "inner_dropout": lambda c: c.get("dropout", 0.0),
    "no_rate": lambda _: 0.0,
}
RATES = ("dropout", "attention_dropout", "embedding_dropout", "inner_dropout", "no_rate")
_NO_SIZES = (*RATES, "patch_stride", "mlp_widths", "heads_of_blocks", "head_hidden")
SIZES = tuple(quantity for quantity in QUANTITIES if quantity not in _NO_SIZES)

# sizes of a ViT-B (Dosovitskiy et al. 2021, table 1), as torchvision's `vit_b_16` has them
VIT_B = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}

# the settings that a quantity brings along
SETTINGS: dict[str, tuple[str, ...]] = {
    **{quantity: (quantity,) for quantity in QUANTITIES},
    "mlp_ratio": ("mlp_dim", "mlp_ratio"),
    "mlp_widths": ("mlp_dim",),
    "heads_of_blocks": ("num_heads", "num_layers"),
    "head_hidden": (),
    "head_width": (),
    "num_patches": ("image_size",),
    "num_tokens": ("image_size",),
    "patches_per_side": ("image_size",),
    "patch_vector": ("patch_size",),
    "patch_stride": ("patch_size",),
    "inner_width": (),
    "key_heads": (),
    "embedding_dropout": (),
    "inner_dropout": (),
    "no_rate": (),
}

SIDES = {"height", "width", "h", "w", "x", "y"}  # of an image or a patch

_NUMBER = {"num", "n", "nb", "no", "number", "count", "nr", "amount", "total", "max"}
_SIZE = {"size", "dim", "dims", "width", "features", "feature", "d", "units", "hidden", "channels", "len", "length",
         "dimension", "dimensions", "sz", "neurons", "nodes"}  # fmt: skip
_ATTENTION = {"attention", "attn", "att", "atten", "msa", "mha", "mhsa", "attentions", "sa"}
_EMBEDDING = {"emb", "embed", "embedding", "embd", "embeddings", "embeds", "embedded"}
_MLP = {"mlp", "ff", "ffn", "feedforward", "feed", "forward", "intermediate", "inner", "fc", "dff", "ffd", "mid",
        "fcn", "up", "middle"}  # fmt: skip
_MLP_ONLY = {"mlp", "ff", "ffn", "feedforward"}  # whatever else is said
_CHANNELS = {"channel", "channels", "chan", "chans", "ch", "chn", "inchannel", "inchannels", "color", "colors",
             "colour", "colours"}  # fmt: skip
_IN_A_ROW = {"row", "side", "axis", "col", "column", "edge"}
_IMAGE = {"image", "img", "im", "imgs", "images", "picture", "pic", "input", "resolution", "res", "pixels",
          "chw"}  # fmt: skip
_CLASSES = {"class", "classes", "cls", "label", "labels", "category", "categories", "target", "targets", "nclass",
            "nclasses", "outputs"}  # fmt: skip
_DEPTH = {"layer", "layers", "block", "blocks", "depth", "encoder", "encoders", "stack", "stacks", "nlayers", "nlayer",
          "nblocks", "repeats", "repeat", "deep", "transformers"}  # fmt: skip
_DROPPED = {"dropout", "drop", "dropouts", "dropped"}
_FACTOR = {"ratio", "expansion", "multiplier", "mult", "mul", "factor", "expand", "scale", "multiple"}
_OTHER = {"path", "stochastic", "decay", "lr", "seed", "eps", "epsilon", "momentum", "warmup", "epochs", "epoch",
          "batch", "temperature", "id", "init", "std", "beta", "decoder", "device", "dtype", "name", "version", "type",
          "mode",
          "act", "activation", "norm", "bias", "token", "pool", "pooling", "vocab", "register", "registers", "workers",
          "optimizer", "shift", "mask", "masking",
          "start", "end", "axis", "softmax", "zero"}  # fmt: skip

# the usual order of a constructor's arguments, where a single letter is all there is
_LETTERS: dict[str, tuple[str, ...]] = {
    "d": ("hidden_dim", "num_layers"),
    "D": ("hidden_dim",),
    "e": ("hidden_dim",),
    "E": ("hidden_dim",),
    "ed": ("hidden_dim",),
    "w": ("hidden_dim", "image_size"),
    "W": ("image_size", "hidden_dim"),
    "h": ("num_heads", "mlp_dim", "image_size"),
    "H": ("num_heads", "image_size", "mlp_dim"),
    "l": ("num_layers",),
    "L": ("num_layers", "num_tokens"),
    "b": ("num_layers",),
    "p": ("patch_size", "dropout"),
    "P": ("patch_size",),
    "ps": ("patch_size",),
    "c": ("num_classes", "in_channels"),
    "C": ("num_classes", "in_channels"),
    "k": ("num_classes", "num_heads"),
    "K": ("num_classes", "num_heads"),
    "m": ("mlp_dim", "mlp_ratio"),
    "M": ("mlp_dim",),
    "f": ("mlp_dim",),
    "r": ("mlp_ratio", "image_size"),
    "n": ("num_layers", "num_patches", "num_heads", "num_classes"),
    "N": ("num_layers", "num_patches", "num_tokens"),
    "s": ("image_size", "patch_size"),
    "i": ("image_size",),
    "I": ("image_size",),
    "dh": ("head_width",),
    "dk": ("head_width", "hidden_dim"),
    "dp": ("dropout",),
    "up": ("mlp_dim",),
}


def words(name: str) -> tuple[str, ...]:
    """Cuts a name into its words, in lower case; digits stay out."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    spaced = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1 \2", spaced)
    return tuple(word.lower() for word in re.split(r"[^A-Za-z]+", spaced) if word)


@functools.cache
def meanings(name: str) -> tuple[str, ...]:
    """Returns the quantities that an argument of this name may stand for, the likeliest first; often none."""
    if name in _LETTERS:
        return _LETTERS[name]
    said = set(words(name))
    said |= {word[:-1] for word in said if word.endswith("s")}
    joined = re.fullmatch(r"(n|num|nb|no)(heads?|layers?|blocks?|classe?s?|patches|channels?|tokens)", name.lower())
    if joined:
        said |= {"num", joined[2]}
    if "p" in said and said & {"size", "dim", "width"}:
        said = said - {"p"} | {"patch"}
    if said & _DROPPED or said & {"p", "prob", "rate"}:
        return _rate(said)
    for rule in (_factor, _channels, _patch_side, _patch, _image, _qkv, _head, _classes, _tokens, _depth, _mlp, _width):
        found = rule(said)
        if found:
            return found
    return ()


# words that say of what kind a number is, and not what of
_KINDS = {"size", "dim", "width", "hidden", "features", "channels", "dropout", "drop", "rate", "prob", "ratio", "num",
          "number", "count", "length"}  # fmt: skip


@functools.cache
def meanings_at(path: str) -> tuple[str, ...]:
    """Returns the same for a place in a config: of `patches.size`, the group says what of."""
    group, _, name = path.rpartition(".")
    if group and _KINDS.issuperset(words(name)):
        return tuple(dict.fromkeys((*meanings(f"{group.rpartition('.')[2]}_{name}"), *meanings(name))))
    return meanings(name)


def _rate(said: set[str]) -> tuple[str, ...]:
    places = _ATTENTION | (_MLP | _EMBEDDING | {"proj", "projection"} if said & {"p", "prob"} else set())
    is_dropout = bool(said & _DROPPED) or not said - {"p", "prob", "rate"} - places
    of_layers = said & {"path", "stochastic", "depth"} or ("layer" in said and "hidden" not in said)
    of_tokens = said & {"token", "mask"} or ("patch" in said and not said & _EMBEDDING)
    if not is_dropout or of_layers or of_tokens or said & {"head", "classifier"}:
        return ("no_rate",)
    if said & ({"proj", "projection", "out", "output", "resid", "residual"} | _MLP):
        return ("inner_dropout",)
    if said & _ATTENTION:
        return ("attention_dropout",)
    if said & (_EMBEDDING | {"pos", "position", "positional", "input"}):
        return ("embedding_dropout",)
    return ("dropout",)


def _factor(said: set[str]) -> tuple[str, ...]:
    if not said & _FACTOR or said & _OTHER or said & _ATTENTION or said & {"patch", "image", "qk", "layer", "head"}:
        return ()
    if "scale" in said and not said & (_MLP | {"hidden", "dim"}):
        return ()
    return ("mlp_ratio", "mlp_dim")


def _patch_side(said: set[str]) -> tuple[str, ...]:
    if said & _NUMBER or said & _OTHER:
        return ()
    if "stride" in said and not said & _EMBEDDING:
        return ("patch_stride", "patch_size")
    is_of_one = said & {"length", "len", "size"} or not said & {"per", "in", "patche", "patches"}
    if "patch" in said and said & {"side", "edge"} and is_of_one:
        return ("patch_size", "patches_per_side")
    return ()


def _patch(said: set[str]) -> tuple[str, ...]:
    patches = {"patch", "patches", "patche", "patchs", "kernel", "stride", "window"}
    is_count_1d = "d" in said and said & _NUMBER  # `num_patches_1d`
    if "grid" in said or (said & patches and (is_count_1d or said & _IN_A_ROW)):
        return ("patches_per_side", "num_patches")
    if not said & patches or said & (_OTHER - {"token"}):
        return ()
    if said & _NUMBER or (said & {"patche", "patches"} and not said & _SIZE):
        return ("num_patches", "patches_per_side", "num_tokens", "patch_size")
    if said & (_EMBEDDING | {"proj", "projection", "out", "output"}):
        return ("hidden_dim",) if said & _SIZE else ()
    if said & {"vector", "vec", "flat", "flattened", "pixels", "input"}:
        return ("patch_vector", "patch_size")
    return ("patch_size", "patch_vector") if said & _SIZE else ("patch_size", "patch_vector", "patches_per_side")


def _channels(said: set[str]) -> tuple[str, ...]:
    if said & _CHANNELS and not said & _MLP_ONLY:
        if said & {"head", "heads"}:
            return ("head_width",)
        if said & {"out", "hidden", "output"} or said & _EMBEDDING:
            return ("hidden_dim", "num_classes")
        return ("in_channels",)
    if "in" in said and said & (_SIZE | {"c"}) and not said & _MLP:
        return ("in_channels", "hidden_dim", "patch_vector")
    if "input" in said and said & {"dim", "features", "feature"} and not said & (_MLP_ONLY | {"dims"}):
        return ("image_size", "in_channels", "patch_vector", "hidden_dim")
    return ()


def _image(said: set[str]) -> tuple[str, ...]:
    if said & {"height", "rows"} or said == {"size"}:
        return ("image_size",)
    if said & _IMAGE and not said & (_OTHER | _EMBEDDING | _NUMBER):
        return ("image_size",)
    return ()


def _qkv(said: set[str]) -> tuple[str, ...]:
    if not said & {"q", "k", "v", "qkv", "key", "query", "value", "qk", "kv"}:
        return ()
    is_of_keys = "head" in said and not said & {"q", "query", "qkv"}
    if ("group" in said or is_of_keys) and not said & _SIZE:  # `num_kv_heads` of attention in groups
        return ("key_heads",)
    return ("head_width", "inner_width", "hidden_dim") if said & _SIZE and not said & _OTHER else ()


def _head(said: set[str]) -> tuple[str, ...]:
    if not said & {"head", "heads", "nhead", "nheads"} or said & _OTHER:
        return ()
    if said & _MLP:
        of_the_last = ("mlp_dim", "representation_size", "head_hidden", "num_classes")
        return of_the_last if "heads" not in said else ("num_heads", "heads_of_blocks")
    if said & {"cls", "class", "classifier", "classification"} and said & _SIZE:
        return ("representation_size", "head_hidden")
    if said & _SIZE - {"hidden"} and not said & {"num", "n", "nb", "number"}:
        return ("head_width", "num_heads")
    if said & {"hidden", "classifier", "classification"}:
        return ("representation_size", "head_hidden")
    return ("num_heads", "heads_of_blocks")


def _classes(said: set[str]) -> tuple[str, ...]:
    if "hidden" in said and said & {"cls", "class", "classes"} and not said & _OTHER:
        return ("representation_size", "head_hidden")
    if said & _CLASSES and not said & _OTHER:
        return ("num_classes",)
    if said & {"out", "output"} and said & (_SIZE | _NUMBER) and not said & (_OTHER | _MLP_ONLY):
        return ("num_classes", "hidden_dim")
    if said & {"representation", "prelogits"} and said & _SIZE:
        return ("representation_size",)
    return ()


def _tokens(said: set[str]) -> tuple[str, ...]:
    counted = said & (_NUMBER | {"len", "length", "size"})
    if said & {"seq", "sequence", "context", "positions"} and not said & _EMBEDDING:
        return ("num_tokens", "num_patches")
    if counted and (said & {"tokens", "pos", "position"} or {"block", "size"} <= said or {"max", "len"} <= said):
        return ("num_tokens", "num_patches")
    return ()


def _depth(said: set[str]) -> tuple[str, ...]:
    if not said & _DEPTH or said & _OTHER or said & {"dim", "size", "width", "features", "fn", "cls"}:
        return ()
    return ("num_layers",) if not said & (_MLP | _EMBEDDING) else ()


def _mlp(said: set[str]) -> tuple[str, ...]:
    if {"transformer", "units"} <= said:  # of each layer of its MLP
        return ("mlp_widths", "mlp_dim")
    others = _OTHER | {"fn"} | (set() if said & _MLP_ONLY else _EMBEDDING)
    is_mlp = said & _MLP or ("linear" in said and said & _SIZE and not said & {"proj", "projection"})
    is_of_a_layer = "layer" not in said or said & (_SIZE | {"node", "unit"})  # `mlp_hidden_layer_nodes`
    if not is_mlp or not is_of_a_layer or said & others:
        return ()
    return ("inner_width", "mlp_dim") if said & {"in", "out", "output"} else ("mlp_dim", "mlp_ratio")


def _width(said: set[str]) -> tuple[str, ...]:
    if said & (_OTHER - {"token"}) or said & {"pos", "position", "positional", "fn", "layer"}:
        return ()
    if said & {"hidden"}:
        return ("hidden_dim", "mlp_dim")
    if "model" in said and not said & _SIZE:
        return ()
    named = _EMBEDDING | {"dim", "dims", "model", "width", "latent", "feature", "features"}
    if said & named or (said & {"token", "projection", "proj"} and said & _SIZE):
        return ("hidden_dim",)
    return ()


def as_in_vit_b(allowed: tuple[str, ...], default: Any) -> tuple[str, ...]:
    """Returns quantities that a name may say, first the width that is of this size in a ViT-B: `channels=768`."""
    width = next((quantity for quantity in ("hidden_dim", "mlp_dim") if VIT_B[quantity] == default), None)
    if width is None or allowed[:1] not in (("in_channels",), ("hidden_dim",)):
        return allowed
    return (width, *(quantity for quantity in allowed if quantity != width))
