"""Any configuration is identical: image, patch, depth, heads, widths, classes, batch and dropout, by Hypothesis.

A failure shrinks to the smallest configuration that differs, and ends with the command that shows it again.
"""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import assume, event, given
from hypothesis import strategies as st

from parity import build_pair, check, strategies


@given(config=strategies.configurations(), batch=strategies.batches(), seed=strategies.seeds())
def test_any_configuration_is_identical(candidate: str, config: dict[str, Any], batch: int, seed: int) -> None:
    event(f"{config['num_layers']} layers")
    event("odd number of heads" if config["num_heads"] % 2 else "even number of heads")
    report = check(candidate, overrides=config, batch=batch, seed=seed)
    again = strategies.command(candidate, config, batch=batch, seed=seed)
    assert report.verdict == "identical", f"{report}\n\nto see it again: {again}"


@given(data=st.data())
def test_any_changed_value_shows_in_the_logits(candidate: str, data: st.DataObject) -> None:
    """Guards the test above, which could not fail where a value doesn't count."""
    config = data.draw(strategies.configurations(), "configuration")
    state = data.draw(strategies.weights(config), "weights")
    change = data.draw(strategies.perturbations(state), "change")
    keys = range(config["hidden_dim"], 2 * config["hidden_dim"])
    # no output depends on a key's bias
    assume(not (change.tensor.endswith("in_proj_bias") and change.index[0] in keys))
    images = data.draw(strategies.inputs(config), "images").double()
    pair = build_pair(candidate, overrides=config)
    model = pair.candidate.double()
    logits = []
    for values in (state, change.apply(state)):
        pair.mapping.load(model, values)
        with torch.no_grad():
            logits.append(model(images))
    assert not torch.equal(*logits), change
