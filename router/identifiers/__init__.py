"""Identifiers: from the head of a request to its name.

===================  =========================  =============================================================
``token``            ``io.l5d.header.token``    a header's value as one path element; the default (the Host)
``path``             ``io.l5d.path``            the first segments of the request's path
``header``           ``io.l5d.header``          a header's value read as a path
``header_path``      ``io.l5d.header.path``     a header that holds a URL path, by default ``:path`` (gRPC)
``method_and_host``  ``io.l5d.methodAndHost``   version, method, host
``static``           ``io.l5d.static``          always the same
``first_of``         a list in the YAML         the first that identifies
``names``                                       what they share: header look-up, names made once
===================  =========================  =============================================================

Every name begins with the router's ``dstPrefix``. Elements of a name are bytes as received: nothing is decoded.
"""
