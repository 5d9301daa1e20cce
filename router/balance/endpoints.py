"""Which endpoints a balancer uses while discovery says this and that.

Bound and Neg take effect at once. Failed and Pending do not take endpoints away: once a set that was not empty has been
seen, it stays. Before that, and after an emptied set, they show.
"""

from __future__ import annotations

from dtab import Addr, AddrBound, AddrFailed, AddrNeg, AddrPending


def keep_known(known: Addr, news: Addr) -> Addr:
    """The state to use after ``news``, given the one used so far."""
    if isinstance(news, AddrNeg):
        return AddrBound()
    if isinstance(news, AddrBound):
        return news
    assert isinstance(news, AddrFailed | AddrPending)
    return known if isinstance(known, AddrBound) and known.endpoints else news
