"""HTTP/1.1 (RFC 9110, 9112): ``rules`` for heads, ``core`` for framing, ``render`` for output, ``server`` and ``client``."""
