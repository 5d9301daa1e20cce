"""Requests to names: the tables of Linkerd's identifiers, and the edges that they leave open."""

import pytest

from dtab import Path, read_path
from router.identifiers import header, header_path, method_and_host, names, path, static, token
from router.identifiers.first_of import first_of
from router.identifiers.names import LIMIT, LONGEST, Names, segments_end
from router.model.headers import RequestHead
from router.spi import IdentifierContext

CONTEXT = IdentifierContext(Path.of("svc"))


def head(target="/", host="web", fields=(), method="GET", version=(1, 1)):
    pairs = tuple((name.encode(), value.encode("latin-1")) for name, value in fields)
    return RequestHead(method.encode(), b"http", host.encode("latin-1"), target.encode("latin-1"), pairs, version=version)


def identify(module, request, **config):
    return module.PLUGIN.make(module.PLUGIN.config(**config), CONTEXT)(request)


# -- io.l5d.header.token ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "request_head", "name"),
    [
        ({}, head(host="Foo.Bar:80"), "/svc/Foo.Bar:80"),
        ({"header": "HOST"}, head(host="web"), "/svc/web"),
        ({"header": ":authority"}, head(host="web", version=(2, 0)), "/svc/web"),
        ({"header": "my-Header"}, head(fields=[("my-header", "Some")]), "/svc/Some"),
        ({"header": "x"}, head(fields=[("x", "first"), ("x", "second")]), "/svc/first"),
        ({"header": ":path"}, head("/a"), r"/svc/\x2f\x61"),
        ({"header": ":method"}, head(method="PUT"), "/svc/PUT"),
        ({}, head(host="a/b"), r"/svc/\x61\x2f\x62"),
        ({}, head(host="../x"), r"/svc/\x2e\x2e\x2f\x78"),
        ({}, head(host="\xff"), r"/svc/\xff"),
    ],
)
def test_token(config, request_head, name):
    found = identify(token, request_head, **config)
    assert found == read_path(name)
    assert isinstance(found, Path)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("config", "reason"),
    [({}, "Host header is empty"), ({"header": "my-header"}, "my-header header is missing")],
)
def test_token_without_a_value(config, reason):
    assert identify(token, head(host=""), **config) == reason


def test_token_with_an_empty_field():
    assert identify(token, head(fields=[("x", "")]), header="x") == "x header is empty"


@pytest.mark.parametrize("name", ["", "my header", ":status", "x\r\ny", "h\xe9", "\u4e00"])
@pytest.mark.parametrize("module", [token, header, header_path])
def test_header_names_are_checked(module, name):
    with pytest.raises(ValueError, match="header must be the name of a header such as Host"):
        module.PLUGIN.config(header=name)


# -- io.l5d.path ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "target", "name"),
    [
        (1, "/mysvc/sub/x", "/svc/mysvc"),
        (2, "/mysvc/sub/x", "/svc/mysvc/sub"),
        (2, "/mysvc/subsvc", "/svc/mysvc/subsvc"),
        (2, "/mysvc/subsvc/", "/svc/mysvc/subsvc"),
        (2, "/mysvc/subsvc/some/path?other=stuff", "/svc/mysvc/subsvc"),
        (2, "/mysvc/subsvc?a=/b/c", "/svc/mysvc/subsvc"),
        (1, "/a//b", "/svc/a"),
        (1, "/a%20b", "/svc/a%20b"),
        (1, "/..", "/svc/.."),
        (1, "/a b", r"/svc/\x61\x20\x62"),
    ],
)
def test_path(segments, target, name):
    assert identify(path, head(target), segments=segments) == read_path(name)


@pytest.mark.parametrize(
    ("segments", "target"),
    [
        (2, "/mysvc?other=stuff"), (2, "/mysvc/"), (2, "/mysvc//"), (2, "//mysvc"), (1, "/"), (1, ""), (1, "*"), (1, "/?a"),
        (1, "?a/b"), (2, "/mysvc?x=/sub"), (1, "x/y"),
    ],
)  # fmt: skip
def test_path_with_too_few_segments(segments, target):
    assert identify(path, head(target), segments=segments) == f"not enough segments in path ({segments} needed)"
    assert isinstance(identify(path, head(target), segments=segments, consume=True), str)


@pytest.mark.parametrize(
    ("segments", "target", "rest"),
    [
        (2, "/mysvc/subsvc/some/path?other=stuff", "/some/path?other=stuff"),
        (2, "/mysvc/subsvc", "/"),
        (2, "/mysvc/subsvc/", "/"),
        (2, "/mysvc/subsvc?x=1", "/?x=1"),
        (2, "/mysvc/subsvc/?x=1", "/?x=1"),
        (2, "/mysvc/subsvc/p1/?foo=bar", "/p1/?foo=bar"),
        (1, "/mysvc//double", "//double"),
        (1, "/mysvc/a/b/", "/a/b/"),
        (1, "/mysvc?a=/b?c", "/?a=/b?c"),
    ],
)
def test_path_consumed(segments, target, rest):
    request = head(target, fields=[("a", "b")])
    found = identify(path, request, segments=segments, consume=True)
    assert isinstance(found, tuple)
    name, onward = found
    assert name == identify(path, request, segments=segments)
    assert onward.path == rest.encode()
    assert (onward.fields, onward.authority, onward.method) == (request.fields, request.authority, request.method)
    assert request.path == target.encode(), "a head is shared, hence never changed"


@pytest.mark.parametrize("segments", [0, -1])
@pytest.mark.parametrize("module", [path, header_path])
def test_segments_are_checked(module, segments):
    with pytest.raises(ValueError, match=f"segments must be 1 or more, not {segments}"):
        module.PLUGIN.config(segments=segments)


def test_segments_end_agrees_with_splitting():
    for target in (b"/a/b/c", b"/a", b"/a/", b"/", b"", b"a/b", b"/a//b", b"//", b"/a?b/c", b"/a/b?c", b"?", b"/?"):
        for count in (1, 2, 3):
            parts = target.partition(b"?")[0].split(b"/")
            used = parts[1 : count + 1]
            fits = parts[0] == b"" and len(used) == count and all(used)
            assert segments_end(target, count) == (len(b"/".join([b"", *used])) if fits else -1), (target, count)


# -- io.l5d.header.path -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "target", "name"),
    [
        ({}, "/one/two/three", "/svc/one/two/three"),
        ({}, "/one/two/", "/svc/one/two"),
        ({}, "/one/two?a=b", "/svc/one/two"),
        ({}, "/one/two/?a=/b/", "/svc/one/two"),
        ({"segments": 2}, "/one/two/three", "/svc/one/two"),
        ({"segments": 1}, "/pkg.Svc/Method", "/svc/pkg.Svc"),
        ({"segments": 2}, "/pkg.Svc/Method", "/svc/pkg.Svc/Method"),
        ({"segments": 2}, "/pkg.Svc/Method?a", "/svc/pkg.Svc/Method"),
    ],
)
def test_header_path(config, target, name):
    assert identify(header_path, head(target), **config) == read_path(name)


@pytest.mark.parametrize(
    ("config", "target", "reason"),
    [
        ({"segments": 3}, "/one/two", ":path must have at least 3 segment(s)"),
        ({"segments": 2}, "/one?/two", ":path must have at least 2 segment(s)"),
        ({}, "/", ":path is missing a destination path, or it has an empty segment"),
        ({}, "", ":path is missing a destination path, or it has an empty segment"),
        ({}, "/?a", ":path is missing a destination path, or it has an empty segment"),
        ({}, "/a//b", ":path is missing a destination path, or it has an empty segment"),
        ({}, "/a//", ":path is missing a destination path, or it has an empty segment"),
        ({}, "a/b", ":path is missing a destination path, or it has an empty segment"),
    ],
)
def test_header_path_that_is_none(config, target, reason):
    assert identify(header_path, head(target), **config) == reason


def test_header_path_of_another_header():
    request = head("/x", fields=[("my-path", "/a/b")])
    assert identify(header_path, request, header="My-Path", segments=1) == read_path("/svc/a")
    assert identify(header_path, request, header="My-Path") == read_path("/svc/a/b")
    assert isinstance(identify(header_path, head("/x"), header="My-Path"), str)
    assert isinstance(identify(header_path, head("/x"), header="My-Path", segments=1), str)


# -- io.l5d.header ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("/foo/bar", "/svc/foo/bar"),
        ("/#/io.l5d.fs/web", "/svc/#/io.l5d.fs/web"),
        (r"/\x66oo/%41", "/svc/foo/%41"),
        ("/", "/svc"),
        ("  /foo # where to", "/svc/foo"),
    ],
)
def test_header(value, name):
    assert identify(header, head(fields=[("l5d-name", value)])) == read_path(name)


@pytest.mark.parametrize("value", ["", "foo", "/foo/", "//foo", "/f oo", "/foo*", "/\xe9", r"/\x0"])
def test_header_that_is_no_path(value):
    found = identify(header, head(fields=[("l5d-name", value)]))
    assert isinstance(found, str)
    assert found.startswith("l5d-name header is no path: ")
    assert "expected but" in found


def test_header_missing():
    assert identify(header, head()) == "l5d-name header is missing"
    assert identify(header, head(fields=[("x-name", "/a")]), header="X-Name") == read_path("/svc/a")


# -- io.l5d.methodAndHost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "request_head", "name"),
    [
        (False, head("/a/b?q", host="Example.com"), "/svc/1.1/GET/example.com"),
        (True, head("/a/b?q", host="Example.com"), "/svc/1.1/GET/example.com/a/b"),
        (True, head("/a/b/?q", host="Example.com"), "/svc/1.1/GET/example.com/a/b"),
        (True, head("/", host="Example.com:80"), "/svc/1.1/GET/example.com:80"),
        (False, head("/a/b", host="x", version=(1, 0)), "/svc/1.0/GET"),
        (True, head("/a/b", host="", version=(1, 0)), "/svc/1.0/GET/a/b"),
        (True, head("*", method="OPTIONS"), r"/svc/1.1/OPTIONS/web/\x2a"),
    ],
)
def test_method_and_host(uri, request_head, name):
    assert identify(method_and_host, request_head, http_uri_in_dst=uri) == read_path(name)


def test_method_and_host_that_cannot():
    assert identify(method_and_host, head(host="")) == "HTTP/1.1 request without a Host"
    for target in ("/a//b", "//a", "//"):
        assert identify(method_and_host, head(target), http_uri_in_dst=True) == "the request's path has an empty segment"
        assert identify(method_and_host, head(target)) == read_path("/svc/1.1/GET/web")


def test_method_and_host_is_for_http_only():
    assert method_and_host.PLUGIN.protocols == {"http"}


# -- io.l5d.static ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "name"), [("/foo/bar", "/svc/foo/bar"), ("foo", "/svc/foo"), ("/", "/svc")])
def test_static(text, name):
    assert identify(static, head("/x"), path=text) == read_path(name)


@pytest.mark.parametrize("text", ["/a/", "/a b", "//"])
def test_static_path_is_checked(text):
    with pytest.raises(ValueError, match=r"path must be a path such as /web: .* expected but"):
        static.PLUGIN.config(path=text)


# -- several ----------------------------------------------------------------------------------------------------


def test_first_of_takes_the_first_that_identifies():
    by_header = header.PLUGIN.make(header.PLUGIN.config(), CONTEXT)
    by_path = path.PLUGIN.make(path.PLUGIN.config(consume=True), CONTEXT)
    several = first_of([by_header, by_path])
    assert several(head("/a/b", fields=[("l5d-name", "/x")])) == read_path("/svc/x")
    found = several(head("/a/b"))
    assert isinstance(found, tuple)
    assert (found[0], found[1].path) == (read_path("/svc/a"), b"/b")
    assert several(head("/")) == "l5d-name header is missing; not enough segments in path (1 needed)"


def test_first_of_one_is_that_one_and_of_none_is_an_error():
    only = token.PLUGIN.make(token.PLUGIN.config(), CONTEXT)
    assert first_of([only]) is only
    with pytest.raises(ValueError, match="at least one identifier"):
        first_of([])


# -- memory -----------------------------------------------------------------------------------------------------


def test_a_name_is_made_once():
    made = identify_many = token.PLUGIN.make(token.PLUGIN.config(), CONTEXT)
    assert made(head(host="web")) is identify_many(head(host="web"))


def test_new_names_never_make_memory_grow():
    calls = []
    table = Names(lambda key: calls.append(key) or key)
    for number in range(3 * LIMIT):
        assert table[b"%d" % number] == b"%d" % number
        assert len(table) <= LIMIT
    assert len(calls) == 3 * LIMIT
    long = b"x" * (LONGEST + 1)
    assert table[long] == long
    assert long not in table
    parts = (b"x" * LONGEST, b"y")
    assert table[parts] == parts
    assert parts not in table


@pytest.mark.parametrize(
    ("module", "config", "request_of"),
    [
        (token, {}, lambda number: head(host=f"host-{number}")),
        (path, {}, lambda number: head(f"/users/{number}?x={number}")),
        (header_path, {"segments": 2}, lambda number: head(f"/pkg.Svc/Method?x={number}")),
        (method_and_host, {}, lambda number: head(f"/{number}")),
    ],
)
def test_identifiers_are_bounded(monkeypatch, module, config, request_of):
    monkeypatch.setattr(names, "LIMIT", 8)
    tables = []

    class Recorded(Names):
        def __init__(self, make):
            super().__init__(make)
            tables.append(self)

    monkeypatch.setattr(module, "Names", Recorded)
    identifier = module.PLUGIN.make(module.PLUGIN.config(**config), CONTEXT)
    for number in range(50):
        assert isinstance(identifier(request_of(number)), Path)
    assert tables
    assert all(len(table) <= 8 for table in tables)
    if module is not token:
        assert min(len(table) for table in tables) == 1, "what does not belong to the name does not count"
