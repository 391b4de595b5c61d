"""The tokens of a timeline: which rows of an event table are told apart, and in which order they are said.

A token stands for one kind of row: an event, a component of an Observation (a blood pressure's systolic value) or a
coded detail (the conclusion of a report). Its identity is resource, code, coded text, unit and what number it carries,
so that values keep their unit and a missing value is a token of its own. Tokens are learned from training subjects
only, and a token must occur in `min_subjects` of them: a code that one person alone has would name that person.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medtwin.core.codes import DEATH
from medtwin.core.events import RESOURCE_ORDER

Number = Literal["none", "numeric", "duration", "ago"]
DEATH_TYPE = "Death"
# The category of a diagnosis: three characters, of external causes in ICD-9 four. Source: WHO, ICD-9 and ICD-10.
_ICD = re.compile(r"^(ICD9(?:CM)?//(?:E[0-9]{3}|V[0-9]{2}|[0-9]{3})|ICD10(?:CM)?//[A-Z][0-9][0-9A-Z]).*$")


@dataclass(frozen=True, slots=True)
class Token:
    """One kind of row.

    Attributes:
        resource: FHIR type; empty for the events of a bare MEDS dataset.
        code: As in the event table; of a detail, its child code (`FHIR//DiagnosticReport.conclusionCode//SNOMED//...`).
        text: Coded `text_value`, or None.
        unit: UCUM unit of the number, or None.
        number: What number the row carries: none, its `numeric_value`, the minutes until its `end_time`, or, of what
            happened before the subject was first seen, the minutes from then on until that time.
        parent: Code of the event that a component or a detail belongs to; None for an event.
    """

    resource: str
    code: str
    text: str | None = None
    unit: str | None = None
    number: Number = "none"
    parent: str | None = None

    @property
    def type(self) -> str:
        """What the decoder chooses before the code: the resource type, in a bare MEDS dataset the code system.

        Death is a type of its own, the last one.
        """
        return DEATH_TYPE if self.code == DEATH else self.resource or (self.parent or self.code).split("//")[0]

    @property
    def ancestor(self) -> str:
        """What it shares its embedding with: the code whatever text, unit and number; of ICD codes the category.

        >>> codes = ("ICD10CM//E11.9", "ICD10CM//E119", "ICD9CM//4019", "ICD9CM//E8859", "LOINC//4548-4")
        >>> [Token("Condition", code).ancestor for code in codes]
        ['ICD10CM//E11', 'ICD10CM//E11', 'ICD9CM//401', 'ICD9CM//E885', 'LOINC//4548-4']
        """
        return _ICD.sub(r"\1", self.code)

    @property
    def fact(self) -> str:
        """What a fact of the whole record that it names is called."""
        return fact_name(self.code, self.text)

    @property
    def has_number(self) -> bool:
        """Whether a number follows the token."""
        return self.number != "none"

    @property
    def is_component(self) -> bool:
        """Whether it is a component: a child with a clinical code of its own."""
        return self.parent is not None and not self.code.startswith("FHIR//")


def fact_name(code: str, text: str | None) -> str:
    """The name of a fact: its code and, where it is an answer, its coded text.

    >>> fact_name("LOINC//72166-2", "SNOMED//8517006")
    'LOINC//72166-2//SNOMED//8517006'
    """
    return f"{code}//{text}" if text else code


def _order(token: Token, after: Mapping[str, str]) -> tuple[Any, ...]:
    ranks = {name: rank for rank, name in enumerate(RESOURCE_ORDER)}
    last = (token.code == DEATH, ranks.get(token.type, len(ranks)))
    root = token.parent or token.code
    place = (max(root, after.get(root, root)), root in after, root)
    return (*last, *place, token.parent is not None, token.is_component is False, *_text(token))


def _text(token: Token) -> tuple[str, ...]:
    return (token.code, token.text or "", token.unit or "", token.number)


@dataclass(frozen=True)
class Vocabulary:
    """Every token, in the order in which a step names them: by type, then code, a component right after its event.

    What is computed from other numbers stands after them.

    Attributes:
        tokens: (V,) the tokens.
    """

    tokens: tuple[Token, ...]
    _index: dict[Token, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {token: index for index, token in enumerate(self.tokens)})

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, tokens: Iterable[Token], after: Mapping[str, str] | None = None) -> Vocabulary:
        """The vocabulary of some tokens; children without their event among them are left out.

        Args:
            tokens: In any order.
            after: Codes of events, and the code that each is to stand after.
        """
        kept = set(tokens)
        events = {(token.resource, token.code) for token in kept if token.parent is None}
        whole = [token for token in kept if token.parent is None or (token.resource, token.parent) in events]
        return cls(tuple(sorted(whole, key=lambda token: _order(token, after or {}))))

    def find(self, token: Token) -> int | None:
        """The index of a token; of the nearest plainer one (without text, then without number), else None."""
        plain = Token(token.resource, token.code, None, token.unit, token.number, token.parent)
        bare = Token(token.resource, token.code, None, None, "none", token.parent)
        for candidate in (token, plain, bare):
            if candidate in self._index:
                return self._index[candidate]
        return None

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The types that occur, in the order of the tokens."""
        return tuple(dict.fromkeys(token.type for token in self.tokens))

    @cached_property
    def type_of(self) -> NDArray[np.int64]:
        """(V,) index into `types` of every token."""
        place = {name: index for index, name in enumerate(self.types)}
        return np.array([place[token.type] for token in self.tokens], dtype=np.int64)

    @cached_property
    def ancestor_of(self) -> NDArray[np.int64]:
        """(V,) index of every token's ancestor, in the order of the tokens."""
        place: dict[str, int] = {}
        return np.array([place.setdefault(token.ancestor, len(place)) for token in self.tokens], dtype=np.int64)

    @cached_property
    def root_of(self) -> NDArray[np.int64]:
        """(V,) first token of the group that a token belongs to: the tokens of one event code and its children.

        Within a step groups never go back, and a child is said only while its group is open.
        """
        first: dict[tuple[str, str], int] = {}
        for index, token in enumerate(self.tokens):
            first.setdefault((token.resource, token.parent or token.code), index)
        return np.array([first[(t.resource, t.parent or t.code)] for t in self.tokens], dtype=np.int64)

    @cached_property
    def is_root(self) -> NDArray[np.bool_]:
        """(V,) whether the token is an event and no child of one."""
        return np.array([token.parent is None for token in self.tokens])

    @cached_property
    def has_number(self) -> NDArray[np.bool_]:
        """(V,) whether a number follows."""
        return np.array([token.has_number for token in self.tokens])

    def where(self, wanted: Sequence[str]) -> NDArray[np.int64]:
        """Indices of the tokens whose code is one of these."""
        codes = set(wanted)
        return np.array([i for i, token in enumerate(self.tokens) if token.code in codes], dtype=np.int64)

    def to_json(self) -> list[dict[str, Any]]:
        """The tokens as JSON values; `from_json` reads them."""
        return [asdict(token) for token in self.tokens]

    @classmethod
    def from_json(cls, rows: Sequence[dict[str, Any]]) -> Vocabulary:
        """The vocabulary that `to_json` wrote, in the same order."""
        return cls(tuple(Token(**row) for row in rows))
