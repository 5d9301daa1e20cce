"""What every client does with every server, which echoes messages and closes with N when told `close N`."""

from __future__ import annotations

CASES = ("text", "binary", "fragmented", "many", "ping", "deflate", "close")
TEXT = "hällo, wörld ☃"
BIG = 1 << 20
PIECES = ("one, ", "two, ", "three")
MANY = 200
CODE = 4001
