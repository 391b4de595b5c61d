"""A tile of subjects: what it draws, and that it draws by the probabilities that the network learned."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medtwin.core.codes import DEATH
from medtwin.timelines.generation.generate import MaskedMass, TimelineModel, noise_keys
from medtwin.timelines.generation.noise import CODE, END, GAP, HOUR, SLOT, STOP, TYPE, WEEKDAY, Noise
from medtwin.timelines.generation.sampler import Sampler
from medtwin.timelines.generation.tile import Drawn, Histories, ScaleTable, Tile
from medtwin.timelines.heads import mixture_log_prob
from medtwin.timelines.network.time_heads import DAYS, MINUTES
from medtwin.timelines.reading.attributes import Attributes
from medtwin.timelines.reading.batches import collate
from medtwin.timelines.reading.heaps import Heaps
from medtwin.timelines.reading.sequences import Sequences
from tests.timelines.conftest import read_decoded

NUM = 32


def latent(model: TimelineModel, rows: Any, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((1000, model.net.latent_dim)).astype(np.float32)[rows]


def people(short: Sequences, num: int = NUM) -> list[Attributes]:
    known = short.attributes()
    return [known[index % len(known)] for index in range(num)]


def draw(model: TimelineModel, attributes: list[Attributes], mass: MaskedMass | None = None, first: int = 0) -> Drawn:
    rows = range(first, first + len(attributes))
    tile = Tile(attributes, latent(model, rows), Noise(noise_keys(1, rows)), len(attributes))
    with torch.inference_mode():
        return Sampler(model, tile, mass or MaskedMass()).run()


def record(drawn: Drawn, row: int) -> list[tuple[int, int, int, float]]:
    """Step, time, token and number (-1 for none) of the events of one subject."""
    mine = drawn.row == row
    columns = (drawn.step, drawn.minute, drawn.token, np.nan_to_num(drawn.value, nan=-1.0))
    return list(zip(*(column[mine].tolist() for column in columns), strict=True))


@pytest.fixture(scope="module")
def drawn(short_model: TimelineModel, short: Sequences) -> Drawn:
    return draw(short_model, people(short))


class Listening(Noise):
    """Numbers that are all one half, and what is inferred of them."""

    def __init__(self) -> None:
        super().__init__(noise_keys(0, range(1)))
        self.stops: list[float] = []

    def uniforms(self, rows: Any, step: Any, place: Any, used: Any) -> Any:
        return np.full((len(rows), len(used)), 0.5)

    def infer(self, rows: Any, step: Any, place: Any, channel: int, value: Any) -> None:
        if channel == STOP and (place == END).all():
            self.stops += value.tolist()
        super().infer(rows, step, place, channel, value)


class Follower(Sampler):
    """Follows one record without hard facts, and notes with which probability it makes every choice."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.chances: dict[tuple[str, int], list[float]] = {}
        self.may_have[:], self.known.phases[:] = True, True
        self.dies[:], self.known.death_fact, self.limit = False, None, 10**9

    def _pick(self, at: Any, mass: Tensor, uniform: Any, known: Tensor) -> Tensor:
        rows, channel = at
        if len(rows) and int(known[0]) >= 0:
            part = mass[0, known[0]]
            if not self.waits[rows].any() and channel == TYPE and not mass[0, -1]:  # a step that may not end here
                part = part / mass[0].sum()
            where = "end" if self.waits[rows].any() else "event"
            self.chances.setdefault((where, channel), []).append(float(part))
        return super()._pick(at, mass, uniform, known)


def followed(model: TimelineModel, one: Sequences, z: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Log probability of a record by what was decided, as the sampler finds it while it follows."""
    values: list[Tensor] = []
    sizes: list[Tensor] = []
    hook = model.net.values.register_forward_hook(lambda _, given, out: values.append(out))
    whole = model.net.times.size_parameters
    monkeypatch.setattr(
        model.net.times, "size_parameters", lambda *given: sizes.append(whole(*given)) or sizes[-1], raising=True
    )
    noise = Listening()
    tile = Tile(one.attributes(), z, noise, 1, one, one.num_steps)
    with torch.inference_mode():
        sampler = Follower(model, tile, MaskedMass())
        drawn = sampler.run()
    hook.remove()
    monkeypatch.undo()
    assert drawn.token.tolist() == one.token.tolist()
    assert drawn.minute[drawn.step > 0].tolist() == one.minute[one.step_of_event()][drawn.step > 0].tolist()
    log = {key: np.log(np.array(part)) for key, part in sampler.chances.items()}
    batch = collate(one, model.spec.gaps)
    goes = batch["stop"][0] == 0
    gap_class, size = batch["gap_class"][0][goes], batch["gap_size"][0][goes]
    kinds = model.net.times.kind[gap_class].numpy()
    chosen = [parameters for parameters, ends in zip(sizes, batch["stop"][0], strict=True) if ends == 0]
    # The first step's time is an attribute: what is found where the static facts end counts for nothing.
    gap, hour, slot, weekday = (log["end", channel][1:] for channel in (GAP, HOUR, SLOT, WEEKDAY))
    gap = gap + np.where(kinds >= MINUTES, mixture_log_prob(torch.cat(chosen), size).numpy(), 0)
    gap += np.where((kinds == 1) | (kinds == DAYS), hour + slot, 0) + np.where(kinds == DAYS, weekday, 0)
    value = mixture_log_prob(torch.cat(values), torch.from_numpy(np.array(one.value))).numpy()
    # With one half as what is drawn, p of stopping leaves p / 2, and going on leaves the middle between p and 1.
    stop = [
        np.log(2 * u) if k == 1 else np.log(2 * (1 - u)) for u, k in zip(noise.stops, batch["stop"][0][1:], strict=True)
    ]
    return {
        "stop": sum(stop),
        "gap": gap.sum(),
        "type": log["event", TYPE].sum(),
        "code": log["event", CODE].sum(),
        "value": value[one.has_value].sum(),
    }


@pytest.mark.parametrize("row", [0, 2, 6, 9])
def test_following_a_record_finds_the_probability_that_the_network_gives_it(
    short_model: TimelineModel, short: Sequences, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = short.take(np.array([row]))
    assert not one.is_cut.any()
    z = latent(short_model, [row])
    with torch.no_grad():
        wanted = read_decoded(short_model.net, collate(one, short_model.spec.gaps), torch.from_numpy(z))._asdict()
    found = followed(short_model, one, z, monkeypatch)
    for name, part in wanted.items():
        assert found[name] == pytest.approx(float(part), rel=1e-4, abs=2e-3), name
    assert abs(sum(found.values())) > 20


def test_replaying_inferred_noise_gives_back_the_record(short_model: TimelineModel, short: Sequences) -> None:
    known = short.take(np.arange(12))
    z, noise = latent(short_model, range(12)), Noise(noise_keys(5, range(12)))
    with torch.inference_mode():
        tile = Tile(known.attributes(), z, noise, 12, known, known.num_steps)
        first = Sampler(short_model, tile, MaskedMass()).run()
        noise.settle()
        again = Sampler(short_model, Tile(known.attributes(), z, noise, 12), MaskedMass()).run()
        other = Sampler(
            short_model, Tile(known.attributes(), z, Noise(noise_keys(5, range(12))), 12), MaskedMass()
        ).run()
    step, subject = known.step_of_event(), known.subject_of_step()
    for row in range(12):
        mine = subject[step] == row
        wanted = [int(token) for token in known.token[mine]]
        assert [token for *_, token, _ in record(first, row)] == wanted
        assert record(again, row) == record(first, row)
        assert {minute for at, minute, *_ in record(again, row) if at > 0} <= set(known.minute.tolist())
    assert sum(record(other, row) != record(first, row) for row in range(12)) > 9  # the control


def test_a_known_beginning_is_kept_and_the_rest_is_drawn(short_model: TimelineModel, short: Sequences) -> None:
    known = short.take(np.array([2, 6, 10]))
    noise = Noise(noise_keys(6, range(3)))
    tile = Tile(known.attributes(), latent(short_model, range(3)), noise, 3, known, np.array([3, 2, 1]))
    with torch.inference_mode():
        drawn = Sampler(short_model, tile, MaskedMass()).run()
    step, subject = known.step_of_event(), known.subject_of_step()
    place = step - known.step_offsets[:-1][subject[step]]
    for row, num in enumerate((3, 2, 1)):
        kept = [(at, token) for at, _, token, _ in record(drawn, row) if at < num]
        mine = (subject[step] == row) & (place < num)
        assert kept == list(zip(place[mine].tolist(), known.token[mine].tolist(), strict=True))
        assert len(record(drawn, row)) > len(kept) or num > 1


def test_a_subject_depends_on_its_own_noise_only(short_model: TimelineModel, short: Sequences, drawn: Drawn) -> None:
    attributes = people(short)
    for first in (0, 27):
        few = draw(short_model, attributes[first : first + 5], first=first)
        assert all(record(few, row) == record(drawn, first + row) for row in range(5))


def test_death_ends_the_record_at_the_end_of_the_window(
    short_model: TimelineModel, short: Sequences, drawn: Drawn
) -> None:
    attributes, fact = people(short), short_model.spec.profile.facts.index(DEATH)
    death = int(short_model.spec.vocabulary.where([DEATH])[0])
    num_dead = 0
    for row, one in enumerate(attributes):
        said = record(drawn, row)
        deaths = [place for place, (_, _, token, _) in enumerate(said) if token == death]
        assert deaths == ([len(said) - 1] if one.facts[fact] and not drawn.is_cut[row] else [])
        if deaths:
            assert said[-1][1] == one.start_minute + one.window_minutes
            num_dead += 1
    assert num_dead >= 3


def test_hard_facts_are_never_contradicted(short_model: TimelineModel, short: Sequences, drawn: Drawn) -> None:
    facts, of = short_model.spec.fact_of, people(short)
    named = facts[drawn.token]
    has = np.array([one.facts for one in of])[drawn.row, named]
    assert (has[named >= 0] == 1).all()
    assert len(set(named[named >= 0].tolist())) > 2  # else it would be trivial
    static = drawn.step == 0
    counts = short_model.spec.static_counts[drawn.token]
    assert (counts[static, 0] > 0).all()
    assert (counts[~static, 1] > 0).all()
    ends = np.array([one.start_minute + one.window_minutes for one in of])[drawn.row]
    assert (drawn.minute <= ends).all()
    for row in range(NUM):
        times = [minute for _, minute, *_ in record(drawn, row)]
        assert times == sorted(times)
        steps = [at for at, *_ in record(drawn, row)]
        assert set(range(1, max(steps) + 1)) <= set(steps)  # no dated step is empty


def test_within_a_step_tokens_stand_in_the_order_of_the_vocabulary(short_model: TimelineModel, drawn: Drawn) -> None:
    roots = short_model.spec.vocabulary.root_of
    is_root = short_model.spec.vocabulary.is_root
    for row in range(NUM):
        said = record(drawn, row)
        for (at, _, before, _), (then, _, after, _) in pairwise(said):
            if at == then:
                assert roots[after] >= roots[before]
                assert is_root[after] or roots[after] == roots[before]


def test_masks_take_probability_away_and_say_how_much(short_model: TimelineModel, short: Sequences) -> None:
    attributes, masks = people(short), short_model.masks
    sugar = int(short_model.spec.vocabulary.where(["LOINC//4548-4"])[0])
    barred = masks.by_sex.copy()
    barred[2, sugar] = False
    free, bound = MaskedMass(), MaskedMass()
    before = draw(short_model, attributes, free)
    after = draw(replace(short_model, masks=replace(masks, by_sex=barred)), attributes, bound)
    sex = np.array([one.sex for one in attributes])
    assert (sex[before.row[before.token == sugar]] == 2).any()
    assert not (sex[after.row[after.token == sugar]] == 2).any()
    assert (sex[after.row[after.token == sugar]] == 1).any()
    assert 0 < free.share < bound.share < 1
    untouched = [row for row in range(NUM) if sex[row] != 2]
    assert all(record(before, row) == record(after, row) for row in untouched)


def test_what_needs_a_fact_is_said_of_nobody_without_it(short_model: TimelineModel, short: Sequences) -> None:
    attributes, masks = people(short), short_model.masks
    sugar = int(short_model.spec.vocabulary.where(["LOINC//4548-4"])[0])
    facts = np.array([one.facts for one in attributes])
    fact = int(np.argmin(np.abs(facts.mean(axis=0) - 0.5)))
    needs = np.zeros((facts.shape[1], len(short_model.spec.vocabulary)), dtype=bool)
    needs[fact, sugar] = True
    before = draw(short_model, attributes)
    after = draw(replace(short_model, masks=replace(masks, needs=needs)), attributes)
    has = facts[:, fact] > 0
    assert not has[before.row[before.token == sugar]].all()
    assert has[after.row[after.token == sugar]].all()
    assert len(after.row[after.token == sugar])
    assert all(record(before, row) == record(after, row) for row in np.flatnonzero(has))


def test_no_history_reaches_back_before_birth(short_model: TimelineModel, short: Sequences) -> None:
    """An old condition of a child of one year began less than a year ago."""
    ago = [i for i, token in enumerate(short_model.spec.vocabulary.tokens) if token.number == "ago"]
    fact = int(short_model.spec.fact_of[ago[0]])
    facts = tuple(int(place == fact) for place in range(short_model.spec.profile.num_facts))
    children = [replace(one, age_start_years=1.0, facts=facts) for one in people(short)]
    drawn = draw(short_model, children)
    years = drawn.value[np.isin(drawn.token, ago)] / 525_960
    assert len(years) > 2
    assert (years <= 1.0 + 1e-5).all()


def test_no_history_began_at_an_age_at_which_it_never_does(short_model: TimelineModel, short: Sequences) -> None:
    ago = [i for i, token in enumerate(short_model.spec.vocabulary.tokens) if token.number == "ago"]
    fact = int(short_model.spec.fact_of[ago[0]])
    facts = tuple(int(place == fact) for place in range(short_model.spec.profile.num_facts))
    grown = [replace(one, age_start_years=40.0, facts=facts) for one in people(short)]
    longest = []
    for youngest in (np.nan, 39.0):
        onset = np.full(len(short_model.spec.vocabulary), youngest)
        drawn = draw(replace(short_model, spec=replace(short_model.spec, youngest_onset=onset)), grown)
        years = drawn.value[np.isin(drawn.token, ago)] / 525_960
        assert len(years) > 2
        longest.append(years.max())
    assert longest[1] <= 3.0 + 1e-5 < longest[0]  # two years of margin


def test_what_began_at_an_age_that_many_share_began_on_that_day(short_model: TimelineModel) -> None:
    spec = short_model.spec
    ago = next(i for i, token in enumerate(spec.vocabulary.tokens) if token.number == "ago")
    heaps = list(spec.heaps)
    heaps[ago] = Heaps((0.0, 6574.0), (1.0, 1.0), are_ages=True)
    histories = Histories(replace(spec, heaps=tuple(heaps)), ScaleTable(spec.scales))
    birth = 40.25 * 525_960
    drawn = birth - 1440 * np.array([6574.3, 6573.6, 6575.0, 0.2, 9000.4])
    token, age = np.full(5, ago), np.full(5, 40.25)
    scaled = spec.scales[ago].encode(drawn)
    raw, again = histories.to_the_day(token, age, (drawn, scaled))
    assert ((birth - raw) / 1440).tolist() == [6574.0, 6574.0, 6575.0, 0.0, 9000.4]
    assert again == pytest.approx(spec.scales[ago].encode(raw))
    assert np.array_equal(histories.to_the_day(token, np.full(5, np.nan), (drawn, scaled))[0], drawn)
    other = next(i for i, each in enumerate(spec.heaps) if i != ago and spec.scales[i] is not None)
    assert np.array_equal(histories.to_the_day(np.full(5, other), age, (drawn, scaled))[0], drawn)


def test_a_record_longer_than_the_context_is_cut_and_says_so(short_model: TimelineModel, short: Sequences) -> None:
    settings = replace(short_model.spec.settings, max_positions=8)
    brief = replace(short_model, spec=replace(short_model.spec, settings=settings))
    drawn = draw(brief, people(short))
    for row in range(NUM):
        said = record(drawn, row)
        assert len(said) + 1 + max(at for at, *_ in said) <= 8
    assert 5 < drawn.is_cut.sum() < NUM
    assert not draw(short_model, people(short)).is_cut.all()


def test_numbers_are_those_that_the_source_could_write(short_model: TimelineModel, drawn: Drawn) -> None:
    scales = short_model.spec.scales
    for token, value in zip(drawn.token, drawn.value, strict=True):
        scale = scales[token]
        if scale is None:
            assert np.isnan(value)
            continue
        low, high = scale.decode(np.array([scale.low, scale.high]))
        assert round(value, scale.decimals) == pytest.approx(value)
        assert low - 10.0**-scale.decimals <= value <= high + 10.0**-scale.decimals
