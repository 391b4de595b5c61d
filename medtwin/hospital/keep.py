"""Which subjects to keep: a small language of facts about a record, joined by `&`, `|`, `!` and parentheses.

    condition(84114007) & sex(F) & age(65,120)
    observation(4548-4) & !medication(861007)
    image(CT) | deceased()

A code is bare, or `SYSTEM//code`. What is negated in the record (refuted, not done) does not count. `age` is in whole
years at the end of the record or at death, both ends included. `&` binds tighter than `|`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from medtwin.core.errors import ConfigError
from medtwin.hospital.laws import LAWS, Laws
from medtwin.hospital.life import Life
from medtwin.hospital.simulate import SubjectRecord, draw_life, record_life

CANDIDATES_PER_SUBJECT = 2_000
_TOKEN = re.compile(r"\s*(?:(?P<name>[a-z_]+)\s*\((?P<arguments>[^()]*)\)|(?P<sign>[&|!()]))")
_RESOURCES = {
    "condition": ("Condition",),
    "observation": ("Observation",),
    "medication": ("MedicationRequest",),
    "procedure": ("Procedure",),
    "immunization": ("Immunization",),
    "encounter": ("Encounter",),
    "image": ("ImagingStudy",),
}
FACTS = (*_RESOURCES, "sex", "age", "deceased")


class Candidate:
    """A subject that may be kept: its life, and its record, which is written only when a fact asks for it."""

    def __init__(self, life: Life, seed: int) -> None:
        self.life = life
        self._seed = seed

    @cached_property
    def record(self) -> SubjectRecord:
        """The record of the life."""
        return record_life(self.life, self._seed)

    def has_event(self, resources: Sequence[str], code: str) -> bool:
        """Whether an event or component of these resources has a code, which may be bare."""
        return any(
            event.resource in resources and (event.code == code or event.code.endswith(f"//{code}"))
            for event in self.record.events
            if not event.code.startswith(("FHIR//", "NEGATED//"))
        )

    @property
    def age(self) -> int:
        """Whole years at the end of the record or at death."""
        return int(self.life.last_age)


Rule = Callable[[Candidate], bool]


@dataclass(frozen=True)
class Keep:
    """A parsed rule.

    Attributes:
        text: As it was written.
        rule: True of the candidates to keep.
    """

    text: str
    rule: Rule

    def __call__(self, record: SubjectRecord) -> bool:
        """Whether a record is kept."""
        candidate = Candidate(record.life, 0)
        candidate.__dict__["record"] = record
        return self.rule(candidate)

    def accepts(self, seed: int, index: int, laws: Laws = LAWS) -> bool:
        """Whether subject `index` is kept; faster than to simulate it first, where age or sex decides."""
        return self.rule(Candidate(draw_life(seed, index, laws), seed))


def parse_keep(text: str) -> Keep:
    """The rule that a text states.

    Raises:
        ConfigError: If the text is not in the language; the message points at the place.
    """
    parser = _Parser(text, list(_tokens(text)))
    rule = parser.alternatives()
    if not parser.is_done():
        raise parser.error("the end, & or |")
    return Keep(text, rule)


def kept_indices(
    num_subjects: int, seed: int, keep: str | None, laws: Laws = LAWS, max_candidates: int | None = None
) -> Iterator[int]:
    """The numbers of the first `num_subjects` subjects that are kept, ascending; without `keep` the first ones.

    Raises:
        ConfigError: If `keep` cannot be parsed, or `max_candidates` (2,000 per subject wanted) hold too few.
    """
    if keep is None:
        yield from range(num_subjects)
        return
    rule, num_kept = parse_keep(keep), 0
    limit = CANDIDATES_PER_SUBJECT * num_subjects if max_candidates is None else max_candidates
    for index in range(limit):
        if num_kept == num_subjects:
            return
        if rule.accepts(seed, index, laws):
            num_kept += 1
            yield index
    if num_kept < num_subjects:
        raise ConfigError(
            f"keep={keep!r} must match {num_subjects} subjects, matched {num_kept} of {limit} candidates: "
            "ask for fewer subjects, or for something less rare"
        )


@dataclass(frozen=True, slots=True)
class _Token:
    position: int
    kind: str  # a sign, or "fact"
    name: str = ""
    arguments: tuple[str, ...] = ()


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise ConfigError(f"keep={text!r} must be facts joined by & | ! ( ), got {text[position:].strip()!r}")
        if match["sign"]:
            yield _Token(position, match["sign"])
        else:
            arguments = tuple(part.strip() for part in match["arguments"].split(","))
            yield _Token(position, "fact", match["name"], arguments if match["arguments"].strip() else ())
        position = match.end()


class _Parser:
    """Recursive descent: alternatives of conjunctions of factors."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._next = 0

    def is_done(self) -> bool:
        return self._next == len(self._tokens)

    def error(self, expected: str) -> ConfigError:
        rest = "the end" if self.is_done() else repr(self._text[self._tokens[self._next].position :].strip())
        return ConfigError(f"keep={self._text!r} must have {expected}, got {rest}")

    def _take(self, kind: str) -> bool:
        if self.is_done() or self._tokens[self._next].kind != kind:
            return False
        self._next += 1
        return True

    def alternatives(self) -> Rule:
        rules = [self._conjunction()]
        while self._take("|"):
            rules.append(self._conjunction())
        return rules[0] if len(rules) == 1 else lambda one: any(rule(one) for rule in rules)

    def _conjunction(self) -> Rule:
        rules = [self._factor()]
        while self._take("&"):
            rules.append(self._factor())
        return rules[0] if len(rules) == 1 else lambda one: all(rule(one) for rule in rules)

    def _factor(self) -> Rule:
        if self._take("!"):
            rule = self._factor()
            return lambda one: not rule(one)
        if self._take("("):
            rule = self.alternatives()
            if not self._take(")"):
                raise self.error("a closing )")
            return rule
        if not self._take("fact"):
            raise self.error("a fact such as condition(84114007)")
        token = self._tokens[self._next - 1]
        return _fact(token.name, token.arguments)


def _fact(name: str, arguments: tuple[str, ...]) -> Rule:
    """The rule of one fact."""
    if name in _RESOURCES and len(arguments) == 1:
        resources, code = _RESOURCES[name], arguments[0]
        return lambda one: one.has_event(resources, code)
    if name == "sex" and len(arguments) == 1 and arguments[0] in ("M", "F"):
        return lambda one: one.life.person.sex == arguments[0]
    if name == "age" and len(arguments) == 2 and all(argument.isdigit() for argument in arguments):
        low, high = int(arguments[0]), int(arguments[1])
        return lambda one: low <= one.age <= high
    if name == "deceased" and not arguments:
        return lambda one: one.life.death < one.life.age_at_end
    if name not in FACTS:
        raise ConfigError(f"keep: a fact must be one of {', '.join(FACTS)}, got {name!r}")
    forms = {"sex": "sex(M) or sex(F)", "age": "age(65,120)", "deceased": "deceased()"}
    got = f"{name}({','.join(arguments)})"
    raise ConfigError(f"keep: {name} must be written as {forms.get(name, f'{name}(CODE)')}, got {got}")
