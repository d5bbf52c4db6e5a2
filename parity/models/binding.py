"""Giving a constructor the reference's configuration: which of its arguments is which setting."""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING, Any

from parity.errors import ParityError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What implementations really call the reference's settings. An argument named `hidden_dim` is the MLP's width where
# the model's own width has another name beside it, as in the tutorial, and the model's width where it has not.
_ALIASES: dict[str, tuple[str, ...]] = {
    "image_size": ("image_size", "img_size", "input_size", "img_dim", "image_dim", "resolution"),
    "patch_size": ("patch_size", "patch_dim", "patch"),
    "num_layers": ("num_layers", "n_layers", "depth", "num_blocks", "n_blocks", "num_hidden_layers", "layers"),
    "num_heads": ("num_heads", "n_heads", "heads", "nheads", "nhead", "num_attention_heads"),
    "hidden_dim": (
        "embed_dim", "dim", "d_model", "hidden_size", "emb_dim", "embedding_dim", "emb_size", "model_dim", "width",
        "hidden_dim",
    ),
    "mlp_dim": (
        "mlp_dim", "intermediate_size", "mlp_size", "mlp_hidden_dim", "ffn_dim", "dim_feedforward", "d_ff",
        "mlp_hidden", "mlp_width", "hidden_dim",
    ),
    "mlp_ratio": ("mlp_ratio", "expansion", "forward_expansion"),
    "num_classes": ("num_classes", "n_classes", "classes", "num_labels", "out_dim"),
    "representation_size": ("representation_size",),
    "in_channels": ("in_channels", "channels", "in_chans", "num_channels", "n_channels", "in_ch"),
    "dropout": ("dropout", "drop_rate", "dropout_rate", "hidden_dropout_prob", "p_dropout"),
    "attention_dropout": (
        "attention_dropout", "attn_dropout", "attn_drop_rate", "attention_dropout_rate", "attention_probs_dropout_prob",
    ),
}  # fmt: skip


def bind(
    name: str, function: Callable[..., Any], config: Mapping[str, Any], arguments: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...], frozenset[str]]:
    """Binds the reference's configuration to the arguments of `function`.

    Args:
        name: how messages call it.
        function: a class or function that returns a module.
        config: the reference's configuration.
        arguments: arguments that go to it as they are, and win over the configuration.

    Returns:
        The arguments by name; the names of those that are left at their defaults; the settings that reached it.

    Raises:
        ParityError: it has an argument without a default that the configuration doesn't know.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise ParityError(f"the candidate {name} cannot be built: Python knows no signature of it") from error
    named = {k: p for k, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [key for key in arguments if key.partition(".")[0] not in named and not takes_any]
    if unknown:
        raise ParityError(
            f"the candidate {name} takes no argument {unknown[0]!r}; it takes {', '.join(named) or 'none'}"
        )
    own = {key: value for key, value in arguments.items() if "." not in key}
    bound, settings = _by_alias(list(named), config)
    bound |= own
    hints = _type_hints(function)
    for key, parameter in named.items():
        nested = {k.partition(".")[2]: v for k, v in arguments.items() if k.startswith(f"{key}.")}
        if key not in bound and (nested or parameter.default is parameter.empty):
            made = _nested(f"{name}'s {key}", key, hints.get(key), config, nested)
            if made is not None:
                bound[key], inner = made
                settings |= inner
    required = [key for key, p in named.items() if p.default is p.empty and key not in bound]
    if required:
        raise ParityError(
            f"the candidate {name} needs an argument {required[0]!r}, which no setting of the reference goes by; "
            f"give it with --candidate-arg {required[0]}=VALUE"
        )
    return bound, tuple(key for key in named if key not in bound), frozenset(settings)


def names_of(setting: str) -> tuple[str, ...]:
    """Returns what implementations call one of the reference's settings."""
    return _ALIASES[setting]


def _values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the reference's settings, with those that torchvision has no name for: its models take colours."""
    values = {"in_channels": 3, **config} if config else {}
    if {"mlp_dim", "hidden_dim"} <= values.keys():
        values["mlp_ratio"] = values["mlp_dim"] / values["hidden_dim"]
    return values


def _by_alias(names: Sequence[str], config: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Gives values to those of `names` by which one of the settings goes; returns them and the settings."""
    values = _values(config)
    bound: dict[str, Any] = {}
    settings = set()
    for setting, aliases in _ALIASES.items():
        argument = next((alias for alias in aliases if alias in names and alias not in bound), None)
        if argument is not None and setting in values:
            bound[argument] = values[setting]
            settings.add(setting)
    return bound, settings


# packages whose classes hold no settings, such as `nn.Module` or `dict`
_NO_CONFIGS = ("builtins", "typing", "collections", "types", "torch", "pathlib")
_CONFIG_NAMES = ("config", "cfg", "conf", "configs", "args", "params", "hparams", "opt", "options", "settings")


def _nested(
    name: str, key: str, kind: Any, config: Mapping[str, Any], arguments: dict[str, Any]
) -> tuple[Any, set[str]] | None:
    """Makes the value of an argument that holds settings itself: an object of its annotated class, or a mapping.

    Returns:
        The value and the settings in it; None if the argument holds no settings.
    """
    if inspect.isclass(kind) and kind.__module__.partition(".")[0] not in _NO_CONFIGS:
        bound, _, settings = bind(name, kind, config, arguments)
        return kind(**bound), set(settings)
    if key.lower() not in _CONFIG_NAMES:
        return None
    # whatever it asks for, as an item or as an attribute, by any name that means one thing
    answers = {
        alias: value
        for setting, value in _values(config).items()
        for alias in _ALIASES[setting]
        if sum(alias in aliases for aliases in _ALIASES.values()) == 1
    }
    return _Settings(answers | arguments), {*config}


class _Settings(dict[str, Any]):
    """Settings by every name they go by, to be read as items or as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __missing__(self, name: str) -> Any:
        raise KeyError(
            f"no setting of the reference goes by {name!r}; give it with --candidate-arg config.{name}=VALUE"
        )

    def __repr__(self) -> str:
        return "{every setting by each of its names}"


def _type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except Exception:  # noqa: BLE001  (an annotation that cannot be resolved is no hint)
        return {}
