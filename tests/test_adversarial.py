"""No crash costs a verdict: what is raised after the comparison is said, and by whom, and models may hold anything."""

from __future__ import annotations

import contextlib
import enum
import json
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer

import parity
import vit
from parity import ParityError, check
from parity.errors import Failures, described, told
from parity.explanation.bending import Bend, Change, Kind
from parity.explanation.bent_vit import BentViT
from parity.explanation.causes.absences import absences
from parity.explanation.causes.catalogue import catalogue
from parity.explanation.following import MISFITS
from parity.models.reference import build_reference, configuration
from parity.models.weights import synthetic, uniform
from parity.report.plain import as_json
from parity.report.report import Report
from tests.conftest import SMALL_OPTIONS
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FAULT = "a bug in parity itself, ZeroDivisionError"
_WITHOUT_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0}


def _ours(**options: Any) -> vit.ViT:
    return vit.ViT(32, 3, 8, 48, 96, 4, 2, 0.0, 10, **options)


def _check(candidate: Any, **options: Any) -> Report:
    return check(candidate, **{"overrides": SMALL | _WITHOUT_DROPOUT, "modes": ["eval"]} | options)


def _broken(*_: Any, **__: Any) -> Any:
    """Raises as if a line of parity's own did."""
    names: dict[str, Any] = {}
    exec(compile("def broken(): 1 / 0", Path(parity.__file__).with_name("planted.py"), "exec"), names)  # noqa: S102
    return names["broken"]()


class Changed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = _ours()

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(images)


class Doubled(Changed):
    def forward(self, images: torch.Tensor) -> Any:
        return 2 * self.model(images)


# --- whose error it is


class Wordless(Exception):  # noqa: N818
    def __str__(self) -> str:
        return f"{1 / 0}"


def _raised(function: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        function()
    return caught.value


def test_error_is_one_line_with_the_users_own_file() -> None:
    def fail() -> None:
        raise ValueError("one\ntwo")

    line = fail.__code__.co_firstlineno + 1
    assert described(_raised(fail)) == f"ValueError: one two (test_adversarial.py, line {line})"
    assert told(_raised(fail)).startswith("the candidate's own code failed: ValueError: one two")
    assert described(Wordless()) == "Wordless"


def test_lack_of_memory_is_nobodys_bug() -> None:
    with pytest.raises(
        ParityError, match=r"--batch 10+: the images alone would need [\d,]+ GB of memory, and there are"
    ):
        _check(Changed, batch=10**15)
    assert "not enough memory" in told(_raised(lambda: torch.empty(2**55)))


@pytest.mark.usefixtures("faults_are_planted")
def test_bug_of_paritys_own_is_said_once_and_where() -> None:
    failures = Failures()
    for _ in range(2):
        with failures.kept("it could not be done"):
            _broken()
    assert failures.told() == [
        f"it could not be done: {FAULT}: division by zero in planted.py, line 1; please report it"
    ]


# --- every step after the comparison


_STEPS = {
    "parity.checking.explain": "the causes could not be named",
    "parity.checking.causes_of_rounding": "it could not be looked at why the candidate is less accurate",
    "parity.judging.top5": "what both models see in the pictures could not be listed",
    "parity.explanation.proving.absences": "what the tensors that the candidate lacks mean could not be said",
    "parity.explanation.proving.uses_of_blocks": "the order of the blocks could not be read",
    "parity.explanation.search.facts": "what is known of the logits could not be said",
    "parity.explanation.search.Search.run": "the search for causes ended before the end",
    "parity.report.terminal._strip": "the report could not be drawn",
    "parity.report.report.asdict": "the report could not be written as JSON",
}


class Unknown(Changed):
    """Another function that no cause explains, and no graft: a value is read in Python."""

    def forward(self, images: torch.Tensor) -> Any:
        logits = self.model(images)
        return logits + logits.roll(1, 1) ** 2 * float(logits.detach().std())


@pytest.mark.usefixtures("faults_are_planted", "brief_search")
@pytest.mark.parametrize("step", _STEPS)
def test_whatever_fails_after_the_comparison_costs_no_verdict(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, _broken)
    report = _check(Unknown)
    assert (report.verdict, report.exit_status) == ("divergent", 1)
    written = f"{report}\n{' '.join(json.loads(report.to_json())['reasons'])}"
    assert f"{_STEPS[step]}: {FAULT}" in written, written
    assert f"{report}".splitlines()[-1].startswith("divergent")


@pytest.mark.usefixtures("faults_are_planted")
def test_doubts_and_own_weights_that_cannot_be_looked_at_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.checking.find_doubts", _broken)
    report = _check(Changed)
    assert (report.verdict, report.exit_status) == ("inconclusive", 3)
    assert FAULT in report.reasons[-1]
    monkeypatch.undo()
    monkeypatch.setattr("parity.checking.compare_weights", _broken)
    module = _ours()
    module.load_state_dict(synthetic(module, 0))
    report = _check(module, reference=module, overrides=None)
    assert (report.verdict, report.reasons[0]) == ("inconclusive", "the candidate's own weights could not be compared")


@pytest.mark.usefixtures("faults_are_planted")
def test_phase_that_fails_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.training.backward.look", _broken)
    report = _check(Changed, phases=["forward", "backward"])
    assert report.verdict == "inconclusive"
    assert any(f"not compared: backward/all, since {FAULT}" in reason for reason in report.reasons)
    assert _check(Doubled, phases=["forward", "backward"]).verdict == "divergent"


@pytest.mark.usefixtures("faults_are_planted")
def test_command_line_keeps_the_exit_status(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("parity.report.terminal._strip", _broken)
    monkeypatch.setattr("parity.report.report.asdict", _broken)
    file = tmp_path / "report.json"
    status, out, err = run("check", *SMALL_OPTIONS, "--modes=eval", "--json", file)
    assert (status, out.splitlines()[-1], err) == (0, "identical", "")
    assert json.loads(file.read_text())["verdict"] == "identical"


# --- every cause


def _catalogues() -> Iterator[tuple[dict[str, Any], list[Kind]]]:
    for settings in (
        SMALL | {"num_layers": 1, "dropout": 0.1, "representation_size": 16},
        SMALL | {"num_layers": 1, "num_heads": 48},
        SMALL | {"num_layers": 1, "num_heads": 1, "patch_size": 32},
    ):
        config = configuration("vit_b_16", settings)
        yield config, catalogue(config)


def _odd_states(state: Mapping[str, torch.Tensor]) -> Iterator[Mapping[str, torch.Tensor]]:
    yield state
    yield {}
    yield {name: tensor for name, tensor in state.items() if not name.endswith("bias")}
    yield {name: tensor for name, tensor in state.items() if tensor.ndim == 1}
    yield {name: tensor.flatten()[:1] for name, tensor in state.items()}
    yield {name: tensor[:0] for name, tensor in state.items()}
    yield {name: torch.tensor(2.0).double() for name in state}
    yield {name: tensor * torch.nan for name, tensor in state.items()}


def _ran(model: BentViT, images: torch.Tensor, changes: list[Change]) -> Bend:
    bend = Bend(changes)
    tensor = images
    for stage in model.stages:
        tensor = model.run(stage, tensor, bend)
    return bend


@pytest.mark.filterwarnings("ignore")
def test_every_cause_meets_models_that_lack_what_it_looks_for() -> None:
    """A cause changes a model, or doesn't fit it, in one of the ways that the search knows of."""
    images = uniform("adversarial", (2, 3, 32, 32)).double()
    tried = 0
    for config, kinds in _catalogues():
        state = {n: t.double() for n, t in synthetic(build_reference(config), 0).items()}
        places = list(_ran(BentViT(config, state), images, []).done)
        for odd in _odd_states(state):
            model = BentViT(config, odd)
            for kind in kinds:
                value = kind.start[0] if kind.start else torch.ones(1, 1, 48).double()
                fitting = [place for place, operation in places if operation in kind.variants and kind.fits(place)]
                place = kind.at or next(iter(fitting), None)
                if place is not None:
                    with contextlib.suppress(*MISFITS):  # as the search takes them
                        _ran(model, images, [Change(kind, place, value if kind.has_value else None)])
                    tried += 1
    assert tried > 3000


def test_every_tensor_may_be_absent() -> None:
    for config, _ in _catalogues():
        for name in build_reference(config).state_dict():
            for part in (name, f"{name}[0:1]", f"{name}[:, 0:1]"):
                for change in absences([part], config):
                    assert change.phrase


@pytest.mark.usefixtures("faults_are_planted", "brief_search")
def test_cause_that_raises_is_no_cause_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(config: Mapping[str, Any]) -> list[Kind]:
        broken = dict.fromkeys(("eps", "norm", "softmax", "output", "linear", "activation"), _broken)
        return [Kind("planted", {name: function}, "x", "y", "z") for name, function in broken.items()] + list(
            catalogue(config)
        )

    monkeypatch.setattr("parity.explanation.proving.catalogue", planted)
    report = check(f"{Path(__file__).parent}/candidates/eps_bias_pool.py:SmallViT", modes=["eval"],
                   overrides={"image_size": 32, "num_layers": 3})  # fmt: skip
    assert [cause.id for cause in report.causes] == ["qkv-bias", "layer-norm-eps", "pooling"]
    told_of = [reason for reason in report.reasons if "the cause planted could not be tried" in reason]
    assert len(told_of) == 1
    assert FAULT in told_of[0]


# --- models that are none, or hold odd things


class _Block(nn.Module):
    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.heads = 4
        bias, norm = options.get("bias", True), options.get("norm", nn.LayerNorm)
        self.norm_1, self.norm_2 = norm(48, eps=1e-6), norm(48, eps=1e-6)
        self.qkv = nn.Linear(48, 144, bias=bias)
        self.proj = nn.Linear(48, 48) if options.get("proj", True) else nn.Identity()
        self.mlp = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 48)) if options.get("mlp", True) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, -1)
        )
        x = x + self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x if self.mlp is None else x + self.mlp(self.norm_2(x))


class _Plain(nn.Module):
    """A ViT without whatever it is told to be without."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.every = options.get("every", False)
        self.patches = (
            nn.Conv2d(3, 48, 8, 8, bias=options.get("patch_bias", True)) if options.get("kernel", True) else None
        )
        self.token = nn.Parameter(torch.zeros(1, 1, 48)) if options.get("token", True) else None
        rows = 16 + (self.token is not None)
        self.table = nn.Parameter(torch.zeros(1, rows, 48)) if options.get("table", True) else None
        self.blocks = nn.Sequential(*(_Block(options) for _ in range(2)))
        self.norm = nn.LayerNorm(48, eps=1e-6) if options.get("final", True) else nn.Identity()
        self.head = nn.Linear(48, 10, bias=options.get("head_bias", True)) if options.get("head", True) else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.patches is None:
            x = nn.functional.unfold(images, 8, stride=8).transpose(1, 2)[..., :48]
        else:
            x = self.patches(images).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        if self.table is not None:
            x = x + self.table
        x = self.norm(self.blocks(x))
        if not self.every:
            x = x.mean(1) if self.token is None else x[:, 0]
        logits: torch.Tensor = x if self.head is None else self.head(x)
        return logits


class _NoNorm(nn.Identity):
    """Takes what a norm takes."""


_LACKING: dict[str, tuple[dict[str, Any], set[str] | None]] = {
    "no class token": ({"token": False}, {"class-token-missing", "pooling"}),
    "no positions": ({"table": False}, {"position-missing"}),
    "no final norm": ({"final": False}, {"norm-missing"}),
    "no bias of the head": ({"head_bias": False}, {"head-bias"}),
    "no head": ({"head": False}, {"head-missing"}),
    "no head and all tokens": ({"head": False, "every": True}, {"head-missing", "pooling"}),
    "heads without bias": ({"bias": False}, {"qkv-bias"}),
    "heads without bias or projection": ({"bias": False, "proj": False}, {"qkv-bias", "out-proj-missing"}),
    "no MLP": ({"mlp": False}, {"branch-missing"}),
    "no patch bias": ({"patch_bias": False}, {"patch-bias"}),
    "no patch kernel": ({"kernel": False}, None),
    "no norms": ({"norm": _NoNorm}, None),
    "nothing": ({"token": False, "table": False, "final": False, "head": False, "bias": False, "proj": False}, None),
}


@pytest.mark.usefixtures("brief_search")
@pytest.mark.parametrize("lacking", _LACKING)
def test_models_that_lack_something_are_divergent_and_explained(lacking: str) -> None:
    options, causes = _LACKING[lacking]
    report = _check(lambda: _Plain(**options))
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert causes is None or {cause.id for cause in report.causes} == causes
    assert report.explanation.complete
    assert report.explanation.by_name or causes is None
    json.loads(report.to_json())


@pytest.mark.usefixtures("brief_search")
def test_models_that_are_no_vit_have_a_verdict() -> None:
    windows = {"patch_size": [8, 8], "embed_dim": 48, "depths": [2], "num_heads": [4], "window_size": [4, 4]}
    report = _check(lambda: SwinTransformer(**windows, mlp_ratio=2.0, num_classes=10))
    assert report.verdict == "divergent"
    assert not [reason for reason in report.reasons if "another architecture" in reason]  # a Swin of one stage is near
    windows |= {"patch_size": [4, 4], "embed_dim": 24, "depths": [1, 1, 1], "num_heads": [2, 4, 8]}
    report = _check(lambda: SwinTransformer(**windows, mlp_ratio=2.0, num_classes=10))
    assert report.verdict == "divergent"
    assert report.reasons[0].endswith("attention of several widths (24, 48 and 96), as a ViT of stages has")
    report = _check(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
    assert report.verdict == "inconclusive"
    assert report.reasons[0].startswith("no weight map: ")


class Itself(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.me = self
        for block in self.model.attn_layers:
            block.around = self


class RefusesTrain(Changed):
    def train(self, mode: bool = True) -> Any:  # noqa: FBT001, FBT002
        raise ValueError(f"this model is frozen, not in mode {mode}")


class Extra(Changed):
    def get_extra_state(self) -> Any:
        return object()


class WithEmpty(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(1), requires_grad=False)
        self.register_buffer("sparse", torch.eye(10).to_sparse())
        self.register_parameter("none", None)

    def forward(self, images: torch.Tensor) -> Any:
        return (self.sparse @ self.model(images).T).T * self.number


class WithNames(Changed):
    """Its parameter's name is a format, an order to a terminal, and no text."""

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("{0}\n\x1b[31m\ud800[red]", nn.Parameter(torch.ones(10)))

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(images) * self._parameters["{0}\n\x1b[31m\ud800[red]"]


def test_odd_modules_are_compared() -> None:
    report = _check(Itself)
    assert report.verdict == "identical"
    assert any("is inside itself (model.attn_layers.0.around, " in note for note in report.notes)
    report = _check(RefusesTrain, modes=["eval", "train"])
    assert report.verdict == "identical"
    assert any("train() refuses (ValueError: this model is frozen, not in mode" in note for note in report.notes)
    assert _check(Extra).verdict == "identical"
    assert _check(WithEmpty).verdict in ("identical", "inconclusive")
    report = _check(WithNames)
    assert report.verdict == "divergent"
    assert "\x1b" not in str(report)
    assert "\ud800" not in str(report)
    json.loads(report.to_json())


@pytest.mark.skipif(not hasattr(nn.Module, "compile"), reason="nn.Module.compile is younger than this torch")
@pytest.mark.filterwarnings("ignore")
def test_parts_that_are_compiled_are_run_as_they_were() -> None:
    compiled: Any = _ours()
    compiled.attn_layers[0].compile()
    compiled.attn_layers[1] = torch.compile(compiled.attn_layers[1])
    compiled.head.forward = torch.compile(compiled.head.forward)
    before = [*compiled.named_modules()], [vars(module).copy() for module in compiled.modules()]
    report = _check(compiled)
    assert report.verdict == "identical"
    assert "the candidate is compiled (head, attn_layers.0, attn_layers.1); what is compared is what was compiled" in (
        report.notes
    )
    assert before == ([*compiled.named_modules()], [vars(module) for module in compiled.modules()])


@pytest.mark.filterwarnings("ignore")
def test_quantised_model_is_compared_as_far_as_it_can_be() -> None:
    reference = _ours()
    reference.load_state_dict(synthetic(reference, 1))
    quantise: Any = torch.ao.quantization.quantize_dynamic
    quantised = quantise(reference, {nn.Linear}, dtype=torch.qint8)
    report = _check(lambda: quantised)
    assert report.verdict == "inconclusive"
    assert "head are quantised; what is compared is the model with plain Linears" in report.reasons[0]
    report = _check(quantised, reference=reference, overrides=None)
    assert report.weights is not None
    assert {tensor.cause for tensor in report.weights.tensors} == {"weights-rounded"}
    assert not isinstance(quantised.head, nn.Linear)


@pytest.mark.skipif(not hasattr(torch, "export"), reason="torch.export is younger than this torch")
@pytest.mark.filterwarnings("ignore")
def test_exported_model_is_compared_by_its_logits() -> None:
    exported = torch.export.export(_ours().eval(), (torch.zeros(3, 3, 32, 32),))
    report = _check(exported.module())
    assert report.exit_status == 0, report
    assert any("is an exported graph, whose layers nobody can watch" in note for note in report.notes)


_RETURNED: dict[str, Callable[[torch.Tensor], Any]] = {
    "a number": lambda y: y.sum(),
    "none of the images": lambda y: y[:0],
    "an axis more": lambda y: y[:, None],
    "other classes": lambda y: torch.cat([y, y], 1),
    "no finite number": lambda y: y * torch.nan,
}
_NOT_LOGITS: dict[str, Callable[[torch.Tensor], Any]] = {
    "returned None, expected logits": lambda _: None,
    "returned an object of str, expected logits": lambda _: "cat",
    r"returned a torch.strided tensor of torch.int64": lambda y: y.argmax(-1),
    r"returned a torch.sparse_coo tensor": lambda y: y.to_sparse(),
    "returned a nested tensor": lambda y: torch.nested.nested_tensor([y[0], y[1]]),
    "returned logits on the device meta": lambda y: y.to("meta"),
}


def _returning(change: Callable[[torch.Tensor], Any]) -> type[nn.Module]:
    return type("Returning", (Changed,), {"forward": lambda self, images: change(self.model(images))})


@pytest.mark.usefixtures("brief_search")
@pytest.mark.parametrize("what", _RETURNED)
def test_logits_of_another_shape_are_divergent(what: str) -> None:
    report = _check(_returning(_RETURNED[what]))
    assert report.verdict == "divergent"
    assert "not the same function" in str(report)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", _NOT_LOGITS)
def test_what_is_no_logits_is_said(what: str) -> None:
    with pytest.raises(ParityError, match=what):
        _check(_returning(_NOT_LOGITS[what]))


class FailsInTrain(Changed):
    def forward(self, images: torch.Tensor) -> Any:
        if self.training:
            raise RuntimeError("not trainable")
        return super().forward(images)


def test_error_in_one_mode_says_which_others_there_are() -> None:
    with pytest.raises(ParityError, match=r"not trainable.*; that is in the mode train, --modes eval leaves it out"):
        _check(FailsInTrain, modes=["eval", "train"])


# --- renderers


class _Mute:
    def __repr__(self) -> str:
        return f"{1 / 0}"


class _Colour(enum.Enum):
    RED = 1


@dataclass
class _Settings:
    width: int
    norm: Any


_CYCLE: list[Any] = []
_CYCLE.append(_CYCLE)
_ODD: list[Any] = [
    _Mute(), float("nan"), float("inf"), 10**5000,  np.float32(2),
    np.int64(3), np.zeros(2), torch.ones(3), torch.float16,
    {1: 2, None: _Mute(), (1, 2): "x"}, {3, 1}, b"\xff", "\ud800 \x1b[31m\n[red]", _Colour.RED, _Settings(3, nn.GELU),
    Path("a"), lambda: 0, nn.Linear(2, 2), _CYCLE, object, "x" * 10**5, range(3), 1j,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(_ODD)))
def test_every_renderer_takes_whatever_a_configuration_holds(number: int) -> None:
    odd = _ODD[number]
    report = Report(
        "divergent",
        ["because \x1b[31m of \ud800"],
        {"name": "vit_b_16", "config": {"odd": odd}, "weights": "none"},
        {"name": "odd", "config": {"odd": odd, "nested": {"odd": [odd]}}},
        {},
        "images",
        notes=["a note\x07"],
    )
    written = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert written["verdict"] == "divergent"
    for text in (str(report), report._repr_html_()):
        assert "divergent" in text
        assert not {"\x1b", "\x07", "\ud800"} & {*text}


def test_values_are_written_as_json_has_them() -> None:
    assert as_json(_Settings(3, {"eps": np.float64(0.5)})) == {"width": 3, "norm": {"eps": 0.5}}
    assert as_json([np.int64(3), (1, 2.5), float("nan"), True, None, "x"]) == [3, [1, 2.5], None, True, None, "x"]
    assert as_json({1: {2}}) == {"1": [2]}
    assert as_json(_Mute()) == "<_Mute>"


# --- the command line


class _Full:
    encoding = "utf-8"

    def write(self, _: str) -> None:
        raise OSError(28, "No space left on device")

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False


def test_streams_may_be_closed_or_full(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    monkeypatch.setattr(sys, "stdout", _Full())
    assert run("check", *SMALL_OPTIONS, "--modes=eval", "--json", file)[0] == 2
    assert json.loads(file.read_text())["verdict"] == "identical"
    monkeypatch.setattr(sys, "stdout", None)
    assert run("check", *SMALL_OPTIONS, "--modes=eval")[0] == 0
    monkeypatch.setattr(sys, "stderr", None)
    assert run("check", "nothing", *SMALL_OPTIONS)[0] == 2


def test_interruption_is_no_verdict(run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("parity.checking.run_checks", interrupt)
    assert run("check", *SMALL_OPTIONS) == (130, "", "parity: interrupted\n")


def test_interruption_that_native_code_makes_another_error_of_is_one_all_the_same(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ParityError("the file is damaged") from error

    # which a test runner may have been told to ignore
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr("parity.checking.run_checks", failing)
        assert run("check", *SMALL_OPTIONS) == (130, "", "parity: interrupted\n")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


_MAPS = {
    "[" * 3000: "is not valid TOML",
    "[map]\na = " + "[" * 3000: "is not valid TOML",
    '[map]\n"conv_proj.weight[,]" = "x"': r"has no slice in conv_proj\.weight\[,\]: write name\[0:64\]",
    '[map]\n"conv_proj.weight" = "x[1:2:3]"': r"has no slice in x\[1:2:3\]: write",
    '[map]\n"conv_proj.weight[:, :, :, :, 0:1]" = "patches.patch.weight"': "of a tensor of shape",
    '[map]\n"conv_proj.weight[0:99999]" = "patches.patch.weight"': "of a tensor of shape",
}


@pytest.mark.parametrize("content", _MAPS)
def test_maps_that_are_none_are_said(content: str, tmp_path: Path) -> None:
    file = tmp_path / "map.toml"
    file.write_text(content)
    try:
        reasons = [*_check(_ours, mapping=str(file)).reasons]
    except ParityError as error:
        reasons = [f"{error}"]
    assert any(re.search(_MAPS[content], reason) for reason in reasons), reasons


def test_input_that_is_neither_picture_nor_folder_is_said() -> None:
    with pytest.raises(ParityError, match="--input /dev/null: it is neither a picture nor a folder of pictures"):
        _check(_ours, input="/dev/null")
