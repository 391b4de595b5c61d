"""Narratives: `text.div` is one XHTML division of plain markup (invariants txt-1 and txt-2).

Source: hl7.org/fhir/R4/narrative.html, section 2.4.0.1: the elements of HTML 4.0 chapters 7 to 11 (but section 4 of
chapter 9) and 15, with `a`, `img` and style attributes; no head, script, form, frame, base, link, object or event.
"""

from __future__ import annotations

import html.entities
import re
from functools import lru_cache
from xml.parsers import expat

from medtwin.fhir.terms import words

_XHTML = "http://www.w3.org/1999/xhtml"
_ELEMENTS = words(
    """
    div p br hr h1 h2 h3 h4 h5 h6 ul ol li dl dt dd table caption colgroup col thead tbody tfoot tr th td
    b i em strong small big tt sub sup dfn code samp kbd var cite abbr acronym span a img pre q blockquote address ins
    del bdo map area strike s u font center
    """
)
_ATTRIBUTES = words(
    """
    id class style title lang dir href name hreflang rel rev charset type tabindex accesskey src alt longdesc height
    width usemap ismap shape coords align valign char charoff abbr axis headers scope rowspan colspan border
    cellspacing cellpadding frame rules summary span nowrap bgcolor color face size cite start value compact clear
    datetime noshade xmlns hspace vspace background target
    """
)
_UNSAFE_URL = re.compile(r"\s*(javascript|vbscript|data:text)", re.IGNORECASE)
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]*);")
_XML_ENTITIES = frozenset({"amp", "lt", "gt", "quot", "apos"})


@lru_cache(maxsize=4096)
def narrative_fault(div: str) -> str:
    """What is wrong with a narrative's division; empty if nothing is. No content is repeated.

    >>> narrative_fault('<div xmlns="http://www.w3.org/1999/xhtml">ok</div>'), narrative_fault("<div>ok</div>")
    ('', 'div must be in the namespace of XHTML')
    """
    if "<!" in div.replace("<!--", "").replace("<![CDATA[", ""):
        return "div must have no document type"
    checker = _Checker()
    try:
        checker.parse(_ENTITY.sub(_numeric, div))
    except expat.ExpatError:
        return "div must be well-formed XML"
    return checker.fault or ("" if checker.has_content else "div must have content: text or an image")


def _numeric(match: re.Match[str]) -> str:
    """A named character of HTML by its number, since XML knows five names only."""
    name = match.group(1)
    point = html.entities.name2codepoint.get(name)
    return match.group() if point is None or name in _XML_ENTITIES else f"&#{point};"


class _Checker:
    def __init__(self) -> None:
        self.fault = ""
        self.has_content = False
        self._depth = 0

    def parse(self, text: str) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.ProcessingInstructionHandler = self._instruction
        parser.Parse(text.encode("utf-8", "surrogatepass"), True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, plain = name.rpartition(" ")
        if namespace != _XHTML:
            self._blame("div must be in the namespace of XHTML")
        elif self._depth == 0 and plain != "div":
            self._blame("the outermost element must be a div")
        elif plain not in _ELEMENTS:
            self._blame("div must hold plain markup only: no scripts, forms, frames or objects")
        for attribute, value in attributes.items():
            self._attribute(attribute, value)
        self.has_content = self.has_content or plain == "img"
        self._depth += 1

    def _attribute(self, name: str, value: str) -> None:
        is_known = name in _ATTRIBUTES or name.startswith("http://www.w3.org/XML/1998/namespace ")
        if not is_known:
            self._blame("div must have plain attributes only: no events")
        if name in ("href", "src") and _UNSAFE_URL.match(value):
            self._blame("div must hold no script in a URL")

    def _end(self, name: str) -> None:
        self._depth -= 1

    def _characters(self, text: str) -> None:
        self.has_content = self.has_content or not text.isspace()

    def _instruction(self, target: str, data: str) -> None:
        self._blame("div must have no processing instructions")

    def _blame(self, fault: str) -> None:
        self.fault = self.fault or fault
