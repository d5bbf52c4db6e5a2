"""What a bug is, and the names of the places where one may begin.

Where a bug begins is said in the names of torchvision's modules: the module itself, or for the code between two modules
the one it leads to or ends. `{i}` is the number of a block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.corpus.hosts import IN_BLOCK
from tests.corpus.planting import Change

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Bug(Change):
    """A bug.

    Attributes:
        category: of the table of kills.
        causes: the ids that an explanation must name; `a|b` where either is right.
        says: what the statement of one of the causes must contain.
        place: names of the modules where it may begin.
        also: names of others whose own part in it shows beside the first one.
        spreads: everything after it differs on its own account, since shapes or dropout masks are others.
        changes_parameters: the model has other parameters.
        changes_buffers: it has other buffers.
        zero_in_torchvision_init: does nothing as long as biases are 0, scales are 1 and the class token is 0.
        in_one_block: can be planted in one block alone; by default, if all of it stands in a block.
        settings: of the reference, besides the corpus's own.
        mode: in which it shows.
        dtype: in which it shows.
    """

    category: str = ""
    causes: tuple[str, ...] = ()
    says: str = ""
    place: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    spreads: bool = False
    changes_parameters: bool = False
    changes_buffers: bool = False
    zero_in_torchvision_init: bool = False
    in_one_block: bool | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    mode: str = "eval"
    dtype: str = "float64"

    @property
    def fits_the_map(self) -> bool:
        """Whether a written map names the tensors that the model has with it."""
        return not (self.changes_parameters or self.changes_buffers)

    @property
    def fits_one_block(self) -> bool:
        """Whether it can be planted in one block alone."""
        if self.in_one_block is not None:
            return self.in_one_block
        parts = {part for edits in (self.edits, *self.per_host.values()) for part in edits} - {"top"}
        return all(part.partition(".")[0] in IN_BLOCK for part in parts)


# the id of a cause that the catalogue has no name for, and that is told by a formula, with its source line
FORMULA = "graft"


# places

LAYER = "encoder.layers.encoder_layer_{i}"
CONV = ("conv_proj",)
TOKENS = ("encoder.dropout", "encoder.layers", "encoder.layers.encoder_layer_0")
NORM_1, NORM_2, FINAL_NORM = (f"{LAYER}.ln_1",), (f"{LAYER}.ln_2",), ("encoder.ln",)
NORMS = (*NORM_1, *NORM_2, *FINAL_NORM)
ATTENTION = (f"{LAYER}.self_attention",)
PROJECTIONS = (*ATTENTION, *(f"{LAYER}.self_attention.{part}" for part in ("in_proj", "query", "key", "value")))
HEADS = (*ATTENTION, f"{LAYER}.self_attention.out_proj")  # between the projections and the output projection
RESIDUAL_1, RESIDUAL_2 = NORM_2, (LAYER,)
SUM_1: dict[str, Any] = {"place": NORM_2, "also": (LAYER,)}  # it goes into the second norm, and into the second sum
ACTIVATION = (f"{LAYER}.mlp.1", f"{LAYER}.mlp.3")
MLP = (f"{LAYER}.mlp", f"{LAYER}.mlp.0")
MLP_OUTPUT = (f"{LAYER}.mlp.4", f"{LAYER}.mlp", LAYER)
HEAD = ("heads.head", "heads")
LOGITS = ("", "heads")


# bugs and edits that several modules share


def own_patches(order: str) -> dict[str, str]:
    """Patches cut out and projected without a convolution; the right order is (0, 2, 3, 1, 4, 5)."""
    return {
        "patches.features": "nn.functional.linear("
        "{images}.unfold(2, *[{conv}.stride[0]] * 2).unfold(3, *[{conv}.stride[0]] * 2)"
        f".permute({order}).flatten(3), {{conv}}.weight.flatten(1), {{conv}}.bias).permute(0, 3, 1, 2)"
    }


NORM_PARTS = ("block.norm_1", "block.norm_2", "model.final_norm")


def norms_by(constructor: str, kind: str = "", *, where: tuple[str, ...] = NORM_PARTS) -> dict[str, str]:
    """Another constructor for all norms, or for those of one place, and the class it belongs to."""
    return ({"top": kind} if kind else {}) | dict.fromkeys(where, constructor)


def own_norm(name: str, result: str) -> dict[str, str]:
    """A class of norms whose forward pass returns `result`, for all norms."""
    kind = f"""class {name}(nn.LayerNorm):
    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        return {result}"""
    return norms_by(f"{name}({{D}}, eps=1e-6)", kind)


def activation(name: str, module: str, function: str, says: str) -> Bug:
    """Another activation of the MLP: as a module, and as a function where it is called as one."""
    return Bug(
        id=f"activation-{name}",
        edits={"mlp.activation": module},
        per_host={"separate": {"mlp.activation": function}},
        place=ACTIVATION,
        causes=("activation",),
        says=says,
    )


def own_activation(name: str, kind: str, result: str, says: str) -> Bug:
    """An activation of the MLP that is written out: a class `kind`, or a function, that returns `result` of `x`."""
    return Bug(
        id=f"activation-{name}",
        edits={
            "top": f"class {kind}(nn.Module):\n    def forward(self, x):\n        return {result}",
            "mlp.activation": f"{kind}()",
        },
        per_host={"separate": {"mlp.activation": f"(lambda x: {result})"}},
        place=ACTIVATION,
        causes=("activation",),
        says=says,
    )
