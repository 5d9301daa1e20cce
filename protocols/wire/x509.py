"""What a certificate says of itself: names and dates, read from its DER (X.690, RFC 5280).

The ``ssl`` module tells that only of certificates that it has verified; a refusal should name what was refused, and a file
be judged before it is used. Nothing here verifies anything. Whatever cannot be read raises ValueError.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address
from typing import NamedTuple

_SEQUENCE, _SET, _OID, _BOOLEAN, _OCTETS = 0x30, 0x31, 0x06, 0x01, 0x04
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_DNS, _URI, _IP = 0x82, 0x86, 0x87
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_SUBJECT_ALT_NAME = bytes.fromhex("551d11")
_TYPES = {
    b"\x55\x04\x03": "CN", b"\x55\x04\x06": "C", b"\x55\x04\x07": "L", b"\x55\x04\x08": "ST", b"\x55\x04\x09": "STREET",
    b"\x55\x04\x0a": "O", b"\x55\x04\x0b": "OU", bytes.fromhex("0992268993f22c640119"): "DC",
    bytes.fromhex("0992268993f22c640101"): "UID",
}  # fmt: skip
_TEXT = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii", 0x12: "ascii", 0x14: "latin-1", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}
_pem = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")

Part = tuple[int, bytes]


class Certificate(NamedTuple):
    """``subject`` as RFC 2253 writes it, the most specific part first; dates in seconds of the epoch."""

    subject: str
    issuer: str
    not_before: float
    not_after: float
    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()

    def show(self) -> str:
        """For people: whom it is for, until when, by whom."""
        names = ", ".join([*self.dns, *self.uris, *self.ips]) or "no alternative name"
        until = datetime.fromtimestamp(self.not_after, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        return f"subject {self.subject or '(empty)'}, names {names}, valid until {until}, issued by {self.issuer or '(empty)'}"


def pem_blocks(data: bytes) -> list[bytes]:
    """The certificates of a PEM file, as PEM."""
    return _pem.findall(data)


def parse(der: bytes) -> Certificate:
    """Read a certificate."""
    certificate = _parts(_one(der, _SEQUENCE))
    tbs = _parts(_expect(certificate[0], _SEQUENCE))
    at = 1 if tbs[0][0] == _VERSION else 0
    if len(tbs) < at + 6:
        raise ValueError("a certificate that ends too early")
    issuer, validity, subject = [_expect(tbs[at + offset], _SEQUENCE) for offset in (2, 3, 4)]
    dates = _parts(validity)
    if len(dates) != 2:
        raise ValueError("a validity that is not two dates")
    names = _alternative_names(tbs[at + 6 :])
    return Certificate(
        _name(subject),
        _name(issuer),
        _time(dates[0]),
        _time(dates[1]),
        tuple([value.decode("ascii", "replace") for tag, value in names if tag == _DNS]),
        tuple([value.decode("ascii", "replace") for tag, value in names if tag == _URI]),
        tuple([str(ip_address(value)) for tag, value in names if tag == _IP]),
    )


# -- DER --------------------------------------------------------------------------------------------------------


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """(tag, where the value begins, where it ends)."""
    if at + 2 > len(data):
        raise ValueError("DER that ends within an element")
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or start + size > len(data):
            raise ValueError("a length that is not DER")
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > len(data):
        raise ValueError("DER that ends within an element")
    return tag, start, start + length


def _parts(data: bytes) -> list[Part]:
    found, at = [], 0
    while at < len(data):
        tag, start, at = _element(data, at)
        found.append((tag, data[start:at]))
    if not found:
        raise ValueError("an empty element")
    return found


def _one(data: bytes, tag: int) -> bytes:
    """The value of the only element."""
    found, start, end = _element(data, 0)
    if found != tag or end != len(data):
        raise ValueError("not a certificate")
    return data[start:end]


def _expect(part: Part, tag: int) -> bytes:
    if part[0] != tag:
        raise ValueError(f"element {part[0]:#x} where {tag:#x} belongs")
    return part[1]


# -- names and times --------------------------------------------------------------------------------------------


def _name(data: bytes) -> str:
    shown = []
    for tag, group in reversed(_parts(data) if data else []):
        pairs = [_parts(_expect(pair, _SEQUENCE)) for pair in _parts(_expect((tag, group), _SET))]
        shown.append("+".join([f"{_type(_expect(kind, _OID))}={_escaped(_text(value))}" for kind, value in pairs]))
    return ",".join(shown)


def _type(oid: bytes) -> str:
    known = _TYPES.get(oid)
    if known is not None:
        return known
    arcs, value = [], 0
    for byte in oid:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2) if arcs else 0
    return ".".join(map(str, [first, arcs[0] - first * 40, *arcs[1:]] if arcs else []))


def _text(part: Part) -> str:
    tag, value = part
    return value.decode(_TEXT.get(tag, "latin-1"), "replace")


def _escaped(text: str) -> str:
    """RFC 2253 §2.4."""
    shown = re.sub(r'([,+"\\<>;])', r"\\\1", text)
    if shown[:1] in ("#", " "):
        shown = "\\" + shown
    return shown[:-1] + "\\ " if len(text) > 1 and text.endswith(" ") else shown


def _time(part: Part) -> float:
    tag, value = part
    text = value.decode("ascii", "replace")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a date that is none")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _alternative_names(rest: list[Part]) -> list[Part]:
    for tag, value in rest:
        if tag == _EXTENSIONS:
            for extension in _parts(_one(value, _SEQUENCE)):
                parts = [part for part in _parts(_expect(extension, _SEQUENCE)) if part[0] != _BOOLEAN]
                if len(parts) == 2 and parts[0] == (_OID, _SUBJECT_ALT_NAME):
                    return _parts(_one(_expect(parts[1], _OCTETS), _SEQUENCE))
    return []


# -- x-forwarded-client-cert ------------------------------------------------------------------------------------

_plain_value = re.compile(r"[!#-+\--:<-~]*").fullmatch  # printable ASCII without blanks and without " , ;


def forwarded(der: bytes) -> bytes:
    """The value of ``x-forwarded-client-cert`` as Linkerd writes it: ``Hash=…;SAN=<uri>;DNS=<name>;Subject="…"``.

    What a name holds can end neither its element nor the header: it is quoted, and escaped, where it has to be. Of a
    certificate that cannot be read there is the hash.
    """
    parts = [f"Hash={sha256(der).hexdigest().upper()}"]
    try:
        certificate = parse(der)
    except ValueError:
        return parts[0].encode()
    parts += [f"SAN={_value(uri)}" for uri in certificate.uris]
    parts += [f"DNS={_value(name)}" for name in certificate.dns]
    if certificate.subject:
        parts.append(f"Subject={_quoted(certificate.subject)}")
    return ";".join(parts).encode()


def _value(text: str) -> str:
    return text if _plain_value(text) else _quoted(text)


def _quoted(text: str) -> str:
    safe = "".join([char if " " <= char <= "~" and char != "%" else _percent(char) for char in text])
    return '"' + re.sub(r'(["\\])', r"\\\1", safe) + '"'


def _percent(char: str) -> str:
    return "".join([f"%{byte:02X}" for byte in char.encode("utf-8", "replace")])
