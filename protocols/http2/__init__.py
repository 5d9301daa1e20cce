"""HTTP/2 (RFC 9113): our own connection for both roles, on hpack's tables, hyperframe's rare frames and h2's vocabulary.

``huffman``, ``tables`` and ``codec`` turn header blocks into fields and back, ``validation`` fields into heads, ``frames``
has the frame formats, ``stream`` the two halves of a stream, ``connection`` the frame loop and what concerns all streams,
``server`` and ``client`` the roles, ``plugin`` the registration.
"""
