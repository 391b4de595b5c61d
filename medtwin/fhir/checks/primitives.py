"""The JSON forms of FHIR R4's primitive types, as schemas, tightened where the definitions' regexes are loose.

Whitespace is the ASCII one throughout, as in the definitions: a no-break space in a name is no fault. Regexes have no
look-around, so that they run in linear time. Source: hl7.org/fhir/R4/datatypes.html, and RFC 6838, RFC 5646, ISO 4217.
"""

from __future__ import annotations

from typing import Any

from medtwin.fhir.terms import words

_YEAR = "([0-9]([0-9]([0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)"
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_MONTH = "(0[1-9]|1[0-2])"
# Every day that exists: to the 28th in all months, then the 29th and 30th, the 31st, and the leap day.
_DAY = f"({_YEAR}-({_MONTH}-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)|{_LEAP_YEAR}-02-29)"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
_ZONE = r"(Z|[+-]((0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_WHITE = r" \t\r\n\f\v"
_WORD = f"[^{_WHITE}]"
_OID = r"urn:oid:[0-2](\.(0|[1-9][0-9]*))+"
_HEX = "[0-9a-fA-F]"
_UUID = f"urn:uuid:{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
_BASE64 = "[A-Za-z0-9+/]"
_SPACE = r"[ \t\r\n]*"
_INTEGER_MAX = 2_147_483_647


def _not_beginning(*prefixes: str) -> str:
    """A regex for words that begin with none of the prefixes; without look-ahead."""
    forms = []
    for start in sorted({prefix[:length] for prefix in prefixes for length in range(len(prefix))}):
        after = "".join(sorted({each[len(start)] for each in prefixes if each.startswith(start)}))
        forms.append(f"{start}[^{after}{_WHITE}]{_WORD}*")
        if start:
            forms.append(start)
    return "|".join(forms)


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


def _count(least: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": _INTEGER_MAX}


# A word; one that begins with urn:uuid: or urn:oid: must be a whole UUID or OID.
URI = f"^({_not_beginning('urn:uuid:', 'urn:oid:')}|{_UUID}|{_OID})$"
_SCHEME = r"[A-Za-z0-9+.\-]"
_NO_URN = f"[A-Za-tv-z]{_SCHEME}*|u([A-Za-qs-z0-9+.\\-]{_SCHEME}*)?|ur([A-Za-mo-z0-9+.\\-]{_SCHEME}*)?|urn{_SCHEME}+"
# The same, with a scheme.
ABSOLUTE_URI = f"^(({_NO_URN}):{_WORD}+|urn:({_not_beginning('uuid:', 'oid:')})|{_UUID}|{_OID})$"
_PLAIN = {"type": "string", "maxLength": 1_048_576, "pattern": f"[^{_WHITE}\\x00-\\x08\\x0e-\\x1f]"}

PRIMITIVES: dict[str, dict[str, Any]] = {
    "boolean": {"type": "boolean"},
    "integer": _count(-_INTEGER_MAX - 1),
    "unsignedInt": _count(0),
    "positiveInt": _count(1),
    "decimal": {"type": "number"},
    "string": _PLAIN,
    "markdown": _PLAIN,
    "xhtml": _PLAIN,
    "code": _text(f"^{_WORD}+( {_WORD}+)*$"),
    "id": _text(r"^[A-Za-z0-9.\-]{1,64}$"),
    "uri": _text(URI),
    "url": _text(URI),
    "canonical": _text(URI),
    "oid": _text(f"^{_OID}$"),
    "uuid": _text(f"^{_UUID}$"),
    "date": _text(f"^({_DAY}|{_YEAR}(-{_MONTH})?)$"),
    "dateTime": _text(f"^({_DAY}(T{_CLOCK}{_ZONE})?|{_YEAR}(-{_MONTH})?)$"),
    "instant": _text(f"^{_DAY}T{_CLOCK}{_ZONE}$"),
    "time": _text(f"^{_CLOCK}$"),
    "base64Binary": _text(
        f"^{_SPACE}(({_BASE64}{_SPACE}){{4}})*(({_BASE64}{_SPACE}){{4}}|({_BASE64}{_SPACE}){{3}}=|"
        f"({_BASE64}{_SPACE}){{2}}={_SPACE}=){_SPACE}$"
    ),
}

# Value sets that cannot be listed, or whose list the package leaves out.
_MIME_WORD = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+\-]{0,126}"
_QUOTED = r'"[^"]*"'
# RFC 2045 wants a parameter with a space in quotes; HL7's own examples leave them out, and so they pass here.
_PARAMETER = rf"[A-Za-z0-9!#$&^_.+\-]+=({_QUOTED}|[^ \t\r\n;\"]+( [^ \t\r\n;\"]+)*)"
MIME_TYPE = rf"^{_MIME_WORD}/({_MIME_WORD}|\*)([ ]?;[ ]?{_PARAMETER})*$"
# FHIR allows these short forms of its own formats wherever it asks for a MIME type of a format.
FORMAT_WORDS = ("json", "ttl", "xml")
LANGUAGE = (
    "^(([A-Za-z]{2,3}(-[A-Za-z]{3}){0,3}|[A-Za-z]{4}|[A-Za-z]{5,8})(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?"
    "(-([A-Za-z0-9]{5,8}|[0-9][A-Za-z0-9]{3}))*(-[0-9A-WY-Za-wy-z](-[A-Za-z0-9]{2,8})+)*(-[xX](-[A-Za-z0-9]{1,8})+)?"
    "|[xX](-[A-Za-z0-9]{1,8})+|[iI](-[A-Za-z0-9]{2,8})+)$"
)
# ISO 4217, list one (current) and the codes of list three that ended after 1999.
CURRENCIES = words(
    """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE
    CHF CHW CLF CLP CNY COP COU CRC CUC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ
    GYD HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL
    LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN
    PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD
    TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XAG XAU XBA XBB XBC XBD XCD XCG XDR XOF XPD XPF XPT
    XSU XTS XUA XXX YER ZAR ZMW ZWG ZWL ADP AFA ATS AZM BEF BGL BYB BYR CSD CYP DEM EEK ESP FIM FRF GHC GRD GWP IEP ITL
    LTL LUF LVL MGF MRO MTL MZM NLG PTE ROL RUR SDD SIT SKK SRG STD TMM TPE TRL VEB VEF YUM ZMK ZWD ZWN ZWR
    """
)
