"""RxNorm concepts that name an ingredient and no clinical drug: what a prescription of is too little to dispense."""

from __future__ import annotations

from medtwin.core.codes import NEGATED_PREFIX
from medtwin.fhir.codings import JOIN
from medtwin.fhir.terms import words

# RXCUIs of term type IN, PIN or MIN that are prescribed often. Facts from the drug list of CPIC (CC0 1.0,
# github.com/cpicpgx/cpic-schema, drug.sql), whose drugs are ingredients; US Core asks for a clinical drug (SCD, SBD,
# GPCK, BPCK).
INGREDIENTS = words(
    """
    103 154 435 448 480 519 704 1151 1191 1256 1886 1998 2002 2020 2101 2348 2393 2404 2551 2555 2556 2597 2626
    2670 3002 3008 3108 3247 3289 3322 3355 3407 3445 3638 3995 4053 4179 4337 4441 4492 4493 4502 4582 4603
    4637 4815 4821 5093 5470 5487 5521 5691 5880 6026 6038 6058 6313 6387 6572 6694 6809 6813 6826 6835 6851
    6878 6901 6915 6918 6960 7052 7145 7240 7242 7243 7407 7454 7517 7531 7646 7781 7804 8076 8120 8150 8183
    8331 8687 8698 8754 8787 8794 8886 9068 9071 9344 9524 9894 9997 10154 10169 10171 10207 10324 10390 10485
    10502 10600 10689 10759 10831 10834 11118 11289 12574 15996 17128 19831 20352 21241 25789 26225 27340 27392
    28439 30125 32592 32624 32937 32968 35302 35636 36117 36437 36453 36567 37801 38400 39786 40048 40790 42316
    42347 42355 42463 43611 44281 50121 51499 52582 53654 61381 68091 69120 70561 72625 73178 77492 82122 83367
    84108 89013 114176 114979 117466 119565 120608 121191 121243 135447 136198 136411 139462 140587 190521
    194000 195085 253453 266856 283742 283821 284635 301542 318341 321988 343047 357977 401713 480167 596723
    662281 711942 714438 797195 816346 901805 1011650 1243041 1311280 1424911 1433868 1455099 1543543 1547220
    1658314 1665509 1731031 1739745
    """
)


def is_ingredient(code: str, source_code: str | None = None) -> bool:
    """Whether the RxNorm codings of a concept name nothing but ingredients, as far as our list of common ones goes.

    >>> is_ingredient("RXNORM//6809"), is_ingredient("RXNORM//861007"), is_ingredient("NDC//6809")
    (True, False, False)
    """
    codes = source_code.split(JOIN) if source_code else [code.removeprefix(NEGATED_PREFIX)]
    found = [each.removeprefix("RXNORM//") for each in codes if each.startswith("RXNORM//")]
    return bool(found) and all(each in INGREDIENTS for each in found)
