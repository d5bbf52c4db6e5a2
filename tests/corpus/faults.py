"""Faults that no tensor of the checks shows: what a model does besides computing, and what it does in other batches."""

from __future__ import annotations

from tests.corpus.planting import Change

# what a reason of the report must contain: a part's words may stand in it
FAULTS = (
    (
        Change(id="positions-zeroed-in-place", edits={"model.images": "({positions}.data.zero_(), {images})[1]"}),
        "writes to its own weights as it runs: {positions_name}",
    ),
    (
        Change(
            id="images-zeroed-after-use",
            edits={"model.norm": "{final_norm}(({images}.zero_(), {encoded})[1])"},
            hosts=("ours", "separate"),
        ),
        "writes to the images it is given",
    ),
    (
        Change(id="batch-axis-lost-at-batch-1", edits={"model.logits": "{logits}.squeeze()"}),
        "in a batch of 1 (shape (11,), the reference has (1, 11))",
    ),
    (
        Change(id="doubled-in-batches-of-two", edits={"model.logits": "{logits} * (1 + ({images}.shape[0] == 2))"}),
        "in a batch of 2 (relative error 1)",
    ),
    (
        Change(
            id="remembers-the-tokens-of-the-first-batch-of-a-shape",
            edits={
                "model.built": "self.cache = {{}}",
                "model.dropped": "self.cache.setdefault((*{images}.shape, {images}.dtype), {dropout}({embedded}))",
            },
        ),
        "not the same function, as other inputs show: on other images, in a batch of 3",
    ),
    (
        Change(
            id="batch-hard-wired",
            edits={"model.pool": "(lambda t: t.view(3, -1, t.shape[-1])[:, 0])({normed})"},
        ),
        "in a batch of 1: the candidate failed",
    ),
)
