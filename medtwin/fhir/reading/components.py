"""The components of an Observation: rows with the component's own code and value, and its details."""

from __future__ import annotations

from typing import Any

from medtwin.core.codes import NEGATED_PREFIX, preferred
from medtwin.fhir.codings import as_list, as_object, joined
from medtwin.fhir.elements import COMPONENT_TREE
from medtwin.fhir.reading.batch import Row
from medtwin.fhir.reading.details import Draft, walk
from medtwin.fhir.reading.values import VALUE_NAMES, read_value

PATH = "Observation.component"
_KNOWN = frozenset(f"{PATH}.{name}" for name in ("code", *VALUE_NAMES))


def read_components(value: Any, draft: Draft, *, negated: bool) -> None:
    """Appends the rows of the components, those of a component after it; one without a code is left behind.

    Raises:
        RejectedError, ShapeError: If an element is malformed.
    """
    for number, component in enumerate(as_list(value, PATH), start=1):
        concept = as_object(component, PATH).get("code")
        codes = draft.concept(concept, f"{PATH}.code") if concept is not None else []
        if not codes:
            draft.left.append(PATH)
            continue
        columns, details = read_value(component, PATH, draft)
        code = preferred(codes)
        row = Row(NEGATED_PREFIX + code if negated else code, source_code=joined(codes), component=number, **columns)
        draft.rows.append(row)
        draft.component = -number
        for path, coded, values in details:
            draft.add(path, coded, **values)
        walk(draft, COMPONENT_TREE, component, ("", PATH), _KNOWN)
