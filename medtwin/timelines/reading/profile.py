"""The law of attributes: what is drawn of a new twin before its record, and what of it follows from what.

Sex, static facts (race, site), age and calendar time are roots. Given them, facts of the whole record (index
conditions, death) follow one after the other, and then the window of observation: p(facts, window | roots), by logistic
regressions with a shared hidden layer and by mixtures of normals. Numbers are modelled as normal scores, so that their
marginal law is the one of the training subjects whatever its form. Every choice is the inverse of a distribution
function at a uniform number: the same numbers with another root give the counterfactual, and the numbers of a known
subject can be inferred.

Source: chain rule by logistic regressions, Frey 1998 (fully visible sigmoid belief networks); normal scores, van der
Waerden 1952; inferring the noise and replaying it, Pearl 2009, section 7.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medtwin.core.codes import DEATH
from medtwin.core.files import atomic_file
from medtwin.core.seeds import generator
from medtwin.timelines.heads import abduct_mixture, linear, mixture_log_prob, sample_categories, sample_mixture
from medtwin.timelines.reading.attributes import Attributes
from medtwin.timelines.reading.openings import NUM_UNIFORMS, Openings
from medtwin.timelines.reading.quantiles import Quantiles

Floats = NDArray[np.float64]
FILE = "profile.npz"
MAX_SUBJECTS = 20_000
"""Subjects that the law is fitted to."""
_BY_DEATH = ("windows_alive", "windows_dead")
_FEW_DEATHS = 50  # where fewer die, their windows are not told apart
_AGE_CENTRES = np.arange(0.0, 100.0, 5.0)
_AGE_WIDTH = 6.0
_HIDDEN = 24
_COMPONENTS = 3
_SCORE = 3.5  # normal scores lie within
_STEPS, _PATIENCE, _EVERY = 800, 5, 20
# Weight decay and rate of learning: strong effects of facts are quickly told, curves must earn their place.
_RATES = {"level": (0.0, 0.02), "root": (0.02, 0.02), "fact": (0.0, 0.1), "hidden": (1.0, 0.01)}
_ROOTS = 6 + NUM_UNIFORMS  # uniform numbers for sex, age and start
_NEVER = -40.0  # log odds
_EXPECTED = 5.0  # two static facts that so many would have both of by chance, and nobody has, exclude each other


class _Table:
    """Subjects as tensors: float64, (n, ...) each."""

    def __init__(self, law: ProfileLaw, subjects: Sequence[Attributes]) -> None:
        columns = np.array([[s.sex, s.age_start_years, s.start_minute, s.window_minutes] for s in subjects])
        facts = np.array([s.facts for s in subjects], dtype=np.float64).reshape(len(subjects), -1)
        self.sex = torch.from_numpy(columns[:, 0].astype(np.int64))
        self.age = torch.from_numpy(columns[:, 1])
        self.start_minute, self.window_minutes = (torch.from_numpy(columns[:, place]) for place in (2, 3))
        self.static = torch.from_numpy(facts[:, law.is_static])
        self.later = torch.from_numpy(facts[:, ~law.is_static])
        self.dies = law.dies(facts)


class _Scored(_Table):
    """Subjects with scores of their numbers, to fit a law to them.

    What follows from a start is told of one score for each start; what age, start and window follow from is told of
    scores that lie anywhere in the span of a value that many share, so that a mixture of normals can give the value
    the share that it has.
    """

    def __init__(self, law: ProfileLaw, subjects: Sequence[Attributes], rng: np.random.Generator) -> None:
        super().__init__(law, subjects)
        age, start, window = (one.numpy() for one in (self.age, self.start_minute, self.window_minutes))
        self.has_age, self.has_window = torch.isfinite(self.age), self.window_minutes > 0
        self.age_score = torch.from_numpy(law.ages.spread(np.nan_to_num(age), rng.random(len(age))))
        self.start = torch.from_numpy(law.starts.score(start))
        self.start_score = torch.from_numpy(law.starts.spread(start, rng.random(len(start))))
        self.window_score = torch.from_numpy(law.window_spread(window, self.dies, rng))


class ProfileNet(nn.Module):
    """The logistic regressions and mixtures of a `ProfileLaw`, in float64.

    Args:
        num_sexes, num_static, num_later: Of the law.

    Attributes:
        excludes: (num_static, num_static) which earlier facts rule out a static fact: nobody is of two races that no
            training subject has both of.
    """

    excludes: Tensor
    has_age: Tensor

    def __init__(self, num_sexes: int, num_static: int, num_later: int) -> None:
        super().__init__()
        first = num_sexes + num_static
        roots = first + len(_AGE_CENTRES) + 2
        self.num_sexes = num_sexes
        self.sex = nn.Parameter(torch.zeros(num_sexes))
        self.static = linear(num_sexes, num_static)
        self.static_on = nn.Parameter(torch.zeros(num_static, num_static))
        self.register_buffer("excludes", torch.zeros(num_static, num_static, dtype=torch.bool))
        self.register_buffer("has_age", torch.zeros(1))
        self.age = nn.Linear(first, 3 * _COMPONENTS)
        self.start = nn.Linear(first + len(_AGE_CENTRES) + 1, 3 * _COMPONENTS)
        self.hidden = nn.Linear(roots, _HIDDEN)
        self.later = linear(roots + _HIDDEN, num_later)
        self.later_on = nn.Parameter(torch.zeros(num_later, num_later))
        self.window_hidden = nn.Linear(roots + num_later, _HIDDEN)
        self.window = nn.Linear(roots + num_later + _HIDDEN, 1 + 3 * _COMPONENTS)
        with torch.no_grad():
            for layer in (self.static, self.age, self.start, self.later, self.window):
                layer.weight.zero_()
                layer.bias.zero_()
            spread = torch.linspace(-1, 1, _COMPONENTS)
            for layer, skip in ((self.age, 0), (self.start, 0), (self.window, 1)):
                layer.bias[skip + _COMPONENTS : skip + 2 * _COMPONENTS] = spread
        self.double()

    def start_at(self, table: _Scored) -> None:
        """Sets what has a closed form, and starts the rest at the shares of the subjects."""
        size = len(table.sex)
        share = (table.static.sum(dim=0) + 0.5) / (size + 1)
        together = table.static.T @ table.static
        expected = share[:, None] * share * size
        self.excludes.copy_((together == 0) & (expected >= _EXPECTED))
        with torch.no_grad():
            self.has_age.copy_(torch.logit((table.has_age.double().mean() * size + 1e-3) / (size + 2e-3)))
            self.sex.copy_(torch.log(torch.bincount(table.sex, minlength=self.num_sexes) + 0.5))
            ruled_out = (self.excludes * share).tril(-1).sum(dim=1)
            self.static.bias.copy_(torch.logit((share / (1 - ruled_out)).clamp(1e-4, 1 - 1e-4)))
            self.later.bias.copy_(torch.logit((table.later.sum(dim=0) + 0.5) / (size + 1)))
            has_window = (table.has_window.double().mean() * size + 0.5) / (size + 1)
            self.window.bias[0] = torch.logit(has_window)

    def first(self, sex: Tensor, static: Tensor) -> Tensor:
        """(n, sexes + static facts)."""
        return torch.cat([functional.one_hot(sex, self.num_sexes).double(), static], dim=-1)

    def aged(self, first: Tensor, age: Tensor) -> Tensor:
        """The features of `first` with age in years (n,) as a smooth basis."""
        known = torch.isfinite(age)
        distance = (torch.nan_to_num(age)[:, None] - torch.from_numpy(_AGE_CENTRES)) / _AGE_WIDTH
        basis = torch.exp(-0.5 * distance * distance) * known[:, None]
        return torch.cat([first, basis, known[:, None].double()], dim=-1)

    def static_logit(self, sex: Tensor, static: Tensor, index: int) -> Tensor:
        """Log odds, (n,), of a static fact, given those before it in (n, num_static)."""
        one_hot = functional.one_hot(sex, self.num_sexes).double()
        own = one_hot @ self.static.weight[index] + self.static.bias[index]
        excluded = static[:, :index] @ self.excludes[index, :index].double() > 0
        return (own + static[:, :index] @ self.static_on[index, :index]).masked_fill(excluded, _NEVER)

    def later_features(self, roots: Tensor) -> Tensor:
        """What later facts follow from besides each other, (n, roots + hidden)."""
        return torch.cat([roots, torch.tanh(self.hidden(roots))], dim=-1)

    def later_logit(self, features: Tensor, later: Tensor, index: int) -> Tensor:
        """Log odds, (n,), of a later fact, given those before it in (n, num_later)."""
        own = features @ self.later.weight[index] + self.later.bias[index]
        return own + later[:, :index] @ self.later_on[index, :index]

    def window_parameters(self, roots: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
        """Log odds, (n,), that there is a window, and the mixture of its normal score, (n, 3K)."""
        x = torch.cat([roots, later], dim=-1)
        out = self.window(torch.cat([x, torch.tanh(self.window_hidden(x))], dim=-1))
        return out[:, 0], out[:, 1:]

    def log_prob(self, table: _Scored) -> Tensor:
        """Log probability of each subject's attributes in nats, (n, parts), in the order of `parts`."""
        first = self.first(table.sex, table.static)
        aged = self.aged(first, table.age)
        roots = torch.cat([aged, table.start[:, None]], dim=-1)
        static = functional.log_softmax(self.sex, dim=-1)[table.sex]
        for index in range(table.static.shape[1]):
            static = static + _bernoulli(self.static_logit(table.sex, table.static, index), table.static[:, index])
        age = _bernoulli(self.has_age.expand(len(static)), table.has_age.double())
        age = age + mixture_log_prob(self.age(first), table.age_score) * table.has_age
        start = mixture_log_prob(self.start(aged), table.start_score)
        features, later = self.later_features(roots), torch.zeros_like(static)
        for index in range(table.later.shape[1]):
            later = later + _bernoulli(self.later_logit(features, table.later, index), table.later[:, index])
        has_window, score = self.window_parameters(roots, table.later)
        window = _bernoulli(has_window, table.has_window.double())
        window = window + mixture_log_prob(score, table.window_score) * table.has_window
        return torch.stack([static, age, start, later, window], dim=-1)

    def parts(self) -> list[list[str]]:
        """Names of the parameters that each part of `log_prob` depends on: no two parts share any."""
        roots = (("sex", "static", "static_on"), ("has_age", "age"), ("start",))
        layers = (*roots, ("hidden", "later", "later_on"), ("window", "window_hidden"))
        names = list(self.state_dict())
        return [[name for name in names if name.split(".")[0] in part] for part in layers]


def _bernoulli(logit: Tensor, value: Tensor) -> Tensor:
    return -functional.binary_cross_entropy_with_logits(logit, value, reduction="none")


@dataclass(frozen=True)
class ProfileLaw:
    """How attributes are coded and drawn.

    Attributes:
        sexes: Codes of `GENDER//...`; the first stands for unknown.
        facts: Codes of the facts, K.
        is_static: (K,) which facts are roots: what a record says as a static fact alone.
        year_mean, year_sd: Of the calendar year at the start, over training subjects.
        ages, starts: Of age at the start (years), of the start (minutes since 1970).
        windows: Of those above 0, minutes.
        windows_by_death: The same of those who do not die and who do: death ends a window at any time.
        openings: On which weekday and at which time records start.
        net: Fitted.
    """

    sexes: tuple[str, ...]
    facts: tuple[str, ...]
    is_static: NDArray[np.bool_]
    year_mean: float
    year_sd: float
    ages: Quantiles
    starts: Quantiles
    windows: Quantiles
    windows_by_death: tuple[Quantiles, Quantiles]
    openings: Openings
    net: ProfileNet

    @property
    def num_facts(self) -> int:
        """K."""
        return len(self.facts)

    @property
    def knows_ages(self) -> bool:
        """Whether any training subject's age was known."""
        return bool(np.any(self.ages.knots != 0))

    @property
    def num_uniforms(self) -> int:
        """Uniform numbers that one subject needs."""
        return self.num_facts + _ROOTS + 3

    def dies(self, facts: Floats) -> NDArray[np.bool_]:
        """(n,) who dies, of facts (n, K)."""
        if DEATH not in self.facts:
            return np.zeros(len(facts), dtype=bool)
        return np.asarray(facts[:, self.facts.index(DEATH)] > 0)

    def window_score(self, minutes: Floats, dies: NDArray[np.bool_]) -> Floats:
        """Normal scores, (n,), of windows (n,) among those of whoever dies, or does not."""
        lives, dead = (one.score(minutes) for one in self.windows_by_death)
        return np.where(dies, dead, lives)

    def window_spread(self, minutes: Floats, dies: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
        """As `window_score`, anywhere in the span of a window that many have."""
        uniforms = rng.random(len(minutes))
        lives, dead = (one.spread(minutes, uniforms) for one in self.windows_by_death)
        return np.where(dies, dead, lives)

    def window_value(self, scores: Floats, dies: NDArray[np.bool_]) -> Floats:
        """Windows, (n,) minutes, of normal scores."""
        lives, dead = (one.value(scores) for one in self.windows_by_death)
        return np.where(dies, dead, lives)

    def draw(self, uniforms: Floats, roots: Sequence[Attributes] | None = None) -> list[Attributes]:
        """The attributes of n subjects.

        Args:
            uniforms: (n, num_uniforms) in [0, 1).
            roots: (n,) subjects whose roots (sex, static facts, age, start) are taken over; null draws these too.
        """
        with torch.no_grad():
            u = torch.from_numpy(np.asarray(uniforms, np.float64))
            num_static = int(self.is_static.sum())
            if roots is None:
                sex, static, age, start = self._draw_roots(u[:, : num_static + _ROOTS])
            else:
                sex = torch.tensor([one.sex for one in roots])
                static = torch.tensor([one.facts for one in roots], dtype=torch.float64).reshape(len(roots), -1)
                static = static[:, torch.from_numpy(self.is_static)]
                age = torch.tensor([one.age_start_years for one in roots], dtype=torch.float64)
                start = torch.tensor([one.start_minute for one in roots], dtype=torch.float64)
            later, window = self._draw_rest(u[:, num_static + _ROOTS :], self._roots(sex, static, age, start))
        facts = torch.zeros(len(u), self.num_facts, dtype=torch.long)
        facts[:, torch.from_numpy(self.is_static)] = static.long()
        facts[:, torch.from_numpy(~self.is_static)] = later.long()
        columns = zip(sex.tolist(), age.tolist(), start.tolist(), window.tolist(), facts.tolist(), strict=True)
        return [Attributes(s, a, round(t), max(0, round(w)), tuple(f)) for s, a, t, w, f in columns]

    def abduct(self, subjects: Sequence[Attributes], rng: np.random.Generator) -> Floats:
        """Uniform numbers, (n, num_uniforms), that give the later facts and windows of known subjects.

        Those of the roots are drawn afresh: a counterfactual takes roots over, or sets them.
        """
        table = _Scored(self, subjects, rng)
        num_static = int(self.is_static.sum())
        u = torch.from_numpy(rng.random((len(subjects), self.num_uniforms)))
        rest = u[:, num_static + _ROOTS :]
        with torch.no_grad():
            roots = self._roots(table.sex, table.static, table.age, table.start_minute)
            features = self.net.later_features(roots)
            for index in range(table.later.shape[1]):
                p = torch.sigmoid(self.net.later_logit(features, table.later, index))
                rest[:, index] = _within(rest[:, index], p, table.later[:, index] > 0)
            logit, window = self.net.window_parameters(roots, table.later)
            rest[:, -3] = _within(rest[:, -3], torch.sigmoid(logit), table.has_window)
            bounds = torch.full((len(subjects),), _SCORE, dtype=torch.float64)
            inferred = abduct_mixture(window, table.window_score, rest[:, -2:], -bounds, bounds)
            rest[:, -2:] = torch.where(table.has_window[:, None], inferred, rest[:, -2:])
        return np.asarray(u.numpy())

    def features(self, attributes: Sequence[Attributes]) -> Floats:
        """What distinguishes subjects, (n, F): sex, facts, age as a smooth basis, calendar time."""
        table = _Table(self, attributes)
        roots = self._roots(table.sex, table.static, table.age, table.start_minute)
        return np.asarray(torch.cat([roots, table.later], dim=-1).numpy())

    def _roots(self, sex: Tensor, static: Tensor, age: Tensor, start: Tensor) -> Tensor:
        aged = self.net.aged(self.net.first(sex, static), age)
        return torch.cat([aged, torch.from_numpy(self.starts.score(start.numpy()))[:, None]], dim=-1)

    def _draw_roots(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sex = sample_categories(torch.softmax(self.net.sex, -1).expand(len(u), -1), u[:, 0])
        static = torch.zeros(len(u), int(self.is_static.sum()), dtype=torch.float64)
        for index in range(static.shape[1]):
            static[:, index] = (u[:, 1 + index] < torch.sigmoid(self.net.static_logit(sex, static, index))).double()
        first, rest = self.net.first(sex, static), u[:, 1 + static.shape[1] :]
        bounds = torch.full((len(u),), _SCORE, dtype=torch.float64)
        age = torch.from_numpy(
            self.ages.value(sample_mixture(self.net.age(first), rest[:, 1:3], -bounds, bounds).numpy())
        )
        age = torch.where(rest[:, 0] < torch.sigmoid(self.net.has_age), age, torch.nan)
        score = sample_mixture(self.net.start(self.net.aged(first, age)), rest[:, 3:5], -bounds, bounds)
        start = self.openings.place(self.starts.value(score.numpy()), rest[:, 5:7].numpy())
        return sex, static, age, torch.from_numpy(start)

    def _draw_rest(self, u: Tensor, roots: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net.later_features(roots)
        later = torch.zeros(len(u), int((~self.is_static).sum()), dtype=torch.float64)
        for index in range(later.shape[1]):
            later[:, index] = (u[:, index] < torch.sigmoid(self.net.later_logit(features, later, index))).double()
        logit, window = self.net.window_parameters(roots, later)
        bounds = torch.full((len(u),), _SCORE, dtype=torch.float64)
        facts = np.zeros((len(u), self.num_facts))
        facts[:, ~self.is_static] = later.numpy()
        score = sample_mixture(window, u[:, -2:], -bounds, bounds).numpy()
        minutes = torch.from_numpy(self.window_value(score, self.dies(facts)))
        return later, torch.where(u[:, -3] < torch.sigmoid(logit), minutes.clamp(min=1), 0.0)

    def save(self, folder: Path) -> None:
        """Writes profile.npz."""
        arrays = {f"net.{name}": value.numpy() for name, value in self.net.state_dict().items()}
        arrays |= {name: getattr(self, name).knots for name in ("ages", "starts", "windows")}
        arrays |= {name: one.knots for name, one in zip(_BY_DEATH, self.windows_by_death, strict=True)}
        with atomic_file(folder / FILE) as file:
            np.savez(file, allow_pickle=False, **arrays)

    def to_json(self) -> dict[str, Any]:
        """What is not in profile.npz, as JSON values."""
        names = ("sexes", "facts", "year_mean", "year_sd")
        own = {"is_static": self.is_static.tolist(), "openings": self.openings.to_json()}
        return {**{name: getattr(self, name) for name in names}, **own}

    @classmethod
    def load(cls, folder: Path, value: Mapping[str, Any]) -> ProfileLaw:
        """The law that `save` and `to_json` wrote."""
        is_static = np.array(value["is_static"], dtype=bool)
        net = ProfileNet(len(value["sexes"]), int(is_static.sum()), int((~is_static).sum()))
        with np.load(folder / FILE, allow_pickle=False) as arrays:
            net.load_state_dict({name: torch.from_numpy(arrays[f"net.{name}"]) for name in net.state_dict()})
            knots = {name: Quantiles(arrays[name]) for name in ("ages", "starts", "windows")}
            lives, dead = (Quantiles(arrays[name]) for name in _BY_DEATH)
        return cls(
            tuple(value["sexes"]),
            tuple(value["facts"]),
            is_static,
            value["year_mean"],
            value["year_sd"],
            **knots,
            windows_by_death=(lives, dead),
            openings=Openings.from_json(value["openings"]),
            net=net.requires_grad_(False),
        )


def _within(uniform: Tensor, probability: Tensor, happened: Tensor) -> Tensor:
    """A uniform number on the side of a probability that lets the thing happen, or not."""
    return torch.where(happened, uniform * probability, probability + uniform * (1 - probability))


def fit_profile(
    subjects: Sequence[Attributes], sexes: Sequence[str], facts: Sequence[str], is_static: NDArray[np.bool_]
) -> ProfileLaw:
    """The law of training subjects, at least one: by maximum likelihood, stopped early on a tenth of them."""
    columns = np.array([[s.age_start_years, s.start_minute, s.window_minutes] for s in subjects], np.float64)
    years = 1970 + columns[:, 1] / 525_960.0
    ages, windows = columns[np.isfinite(columns[:, 0]), 0], columns[columns[:, 2] > 0, 2]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = ProfileNet(len(sexes), int(is_static.sum()), int((~is_static).sum()))
    law = ProfileLaw(
        tuple(sexes),
        tuple(facts),
        is_static,
        float(years.mean()),
        float(years.std()) or 1.0,
        Quantiles.of(ages if len(ages) else np.zeros(1)),
        Quantiles.of(columns[:, 1]),
        Quantiles.of(windows if len(windows) else np.ones(1)),
        _windows_by_death(subjects, facts),
        Openings.of(columns[:, 1].astype(np.int64)),
        net,
    )
    rng = generator(0, "profile")
    shuffled = [subjects[index] for index in rng.permutation(len(subjects))[:MAX_SUBJECTS]]
    num_judges = len(shuffled) // 10
    learned = _Scored(law, shuffled[num_judges:], rng)
    _maximise(net, learned, _Scored(law, shuffled[:num_judges], rng) if num_judges else None)
    net.requires_grad_(False)
    return law


def _windows_by_death(subjects: Sequence[Attributes], facts: Sequence[str]) -> tuple[Quantiles, Quantiles]:
    """As of `ProfileLaw`; those of all for the others where few live, or few die."""
    windows = np.array([one.window_minutes for one in subjects], dtype=np.float64)
    death = facts.index(DEATH) if DEATH in facts else None
    dies = np.array([death is not None and one.facts[death] > 0 for one in subjects], dtype=bool)
    every = windows[windows > 0] if (windows > 0).any() else np.ones(1)
    parts = [windows[(windows > 0) & group] for group in (~dies, dies)]
    lives, dead = (Quantiles.of(part if len(part) >= _FEW_DEATHS else every) for part in parts)
    return lives, dead


def _kind(name: str, parameter: Tensor) -> str:
    if parameter.dim() == 1:
        return "level"
    return "fact" if name.endswith("_on") else "hidden" if "hidden" in name else "root"


def _maximise(net: ProfileNet, table: _Scored, judges: _Scored | None) -> None:
    """Fits every part until it says no more of the judges: one that overfits early does not end the others."""
    net.start_at(table)
    groups: list[dict[str, Any]] = []
    for kind, (decay, rate) in _RATES.items():
        mine = [parameter for name, parameter in net.named_parameters() if _kind(name, parameter) == kind]
        groups.append({"params": mine, "weight_decay": decay, "lr": rate, "first": rate})
    optimizer = torch.optim.AdamW(groups)
    parts = net.parts()
    best, waited = np.full(len(parts), np.inf), np.zeros(len(parts), dtype=int)
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = group["first"] * 0.5 ** (step / 250)
        optimizer.zero_grad()
        loss = -net.log_prob(table).sum(dim=-1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % _EVERY == _EVERY - 1:
            with torch.no_grad():
                now = -net.log_prob(judges if judges is not None else table).mean(dim=0).numpy()
            state = net.state_dict()
            for part in np.flatnonzero(now < best):
                kept |= {name: state[name].clone() for name in parts[part]}
            waited = np.where(now < best - 1e-4, 0, waited + 1)
            best = np.minimum(best, now)
            if (waited >= _PATIENCE).all():
                break
    net.load_state_dict(kept)
