"""The Huffman code of HPACK (RFC 7541 §5.2, appendix B), decoded a byte at a time.

The state of the decoder is a node of the code's tree. A row holds, per node and input byte, where the byte leads and what
it yields; rows are filled when they are first needed. Bound: 256 nodes of 256 entries, shared by all connections.
"""

from __future__ import annotations

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

_EOS = 256
_MAX_PADDING = 7


class HuffmanError(Exception):
    """A string that is not Huffman-coded: EOS inside, or padding that is too long or not all ones."""


class _Row:
    """One node: ``steps[byte]`` is (next row, decoded bytes) once computed. ``final``: a string may end here."""

    __slots__ = ("final", "node", "steps")

    def __init__(self, node: int) -> None:
        self.node = node
        self.steps: list[tuple[_Row, bytes] | None] = [None] * 256
        self.final = False


class HuffmanDecoder:
    """Decodes strings. Stateless but for its table, hence shared."""

    def __init__(self) -> None:
        # children[node] = [zero, one]; a negative entry -symbol - 1 is a leaf.
        self._children: list[list[int]] = [[0, 0]]
        for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
            self._insert(symbol, code, length)
        self._rows = [_Row(node) for node in range(len(self._children))]
        node = 0
        for _ in range(_MAX_PADDING + 1):
            self._rows[node].final = True
            node = self._children[node][1]

    def _insert(self, symbol: int, code: int, length: int) -> None:
        node = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if not self._children[node][bit]:
                self._children.append([0, 0])
                self._children[node][bit] = len(self._children) - 1
            node = self._children[node][bit]
        self._children[node][code & 1] = -symbol - 1

    def decode(self, data: bytes) -> bytes:
        """The string of ``data``. Raises :class:`HuffmanError`."""
        row = self._rows[0]
        out: list[bytes] = []
        append = out.append
        for byte in data:
            step = row.steps[byte]
            if step is None:
                step = self._step(row, byte)
            row, text = step
            append(text)
        if not row.final:
            raise HuffmanError("a Huffman string with wrong padding")
        return b"".join(out)

    def _step(self, row: _Row, byte: int) -> tuple[_Row, bytes]:
        node, text = row.node, bytearray()
        for shift in range(7, -1, -1):
            node = self._children[node][byte >> shift & 1]
            if node < 0:
                if node == -_EOS - 1:
                    raise HuffmanError("EOS inside of a Huffman string")
                text.append(-node - 1)
                node = 0
        step = (self._rows[node], bytes(text))
        row.steps[byte] = step
        return step


HUFFMAN = HuffmanDecoder()
