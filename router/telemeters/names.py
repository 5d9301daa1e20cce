"""Names of metrics, with the parts that vary taken out as labels (Linkerd's rules, and a few more for conventional names).

``rt/http/client/$/inet/127.1/80/service/svc/web/requests`` is ``rt client service requests`` with ``rt="http"``,
``client="/$/inet/127.1/80"`` and ``service="/svc/web"``.
"""

from __future__ import annotations

import attrs

from router.model.metrics import APART

_NAMED = {"service", "client", "server"}


@attrs.frozen
class Labelled:
    """The elements that stay, and the labels."""

    elements: tuple[str, ...]
    labels: dict[str, str]


def labelled(name: str) -> Labelled:
    """Take the labels out of a name."""
    elements = name.split(APART)
    kept: list[str] = []
    labels: dict[str, str] = {}
    at = 0
    if elements[0] == "rt" and len(elements) > 2:
        kept, labels, at = ["rt"], {"rt": elements[1]}, 2
    elif elements[0] == "namer" and len(elements) > 2:
        kept, labels, at = ["namer"], {"namer": "/" + elements[1]}, 2
    while at < len(elements):
        element = elements[at]
        at += 1
        kept.append(element)
        if element == "server" and at + 1 < len(elements):
            labels["server"] = "/".join(elements[at : at + 2])
            at += 2
        elif element in _NAMED and at + 1 < len(elements):
            labels[element] = "/" + elements[at]
            at += 1
        elif element == "failures" and at < len(elements):
            labels["exception"] = ":".join(elements[at:])
            break
    return Labelled(tuple(kept), labels)
