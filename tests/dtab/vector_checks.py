"""What each category of vectors means. See ``_meta`` of the file for the forms."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

import dtab as d
from dtab import activity, explain, namer, tree
from dtab.delegation import Delegator, Evaluation
from dtab.namer import RewritingNamer, SystemNamers
from dtab.path import Path
from dtab.pattern import PathPattern
from router import dtab_headers
from router.balance.endpoints import keep_known
from router.bind.dyn import ClosedError, DynBinding
from router.bind.pick import probabilities
from router.config.params import static_params
from router.interpreters import transformers
from router.interpreters.default import Interpreter, InterpreterContext
from router.interpreters.source import DtabSource

Vector = dict[str, Any]
SYMBOLS = {"neg": tree.NEG, "fail": tree.FAIL, "empty": tree.EMPTY}


# -- forms ----------------------------------------------------------------------------------------------------


def build(form: Any, leaf: Any = d.read_path) -> Any:
    if isinstance(form, str):
        return SYMBOLS[form]
    if "leaf" in form:
        return tree.Leaf(leaf(form["leaf"]))
    if "bound" in form:
        return tree.Leaf(make_bound(form["bound"]))
    if "alt" in form:
        return tree.Alt(tuple(build(part, leaf) for part in form["alt"]))
    return tree.Union(tuple(tree.Weighted(weight, build(part, leaf)) for weight, part in form["union"]))


def make_bound(form: Any, addrs: list[str] | None = None) -> namer.Bound:
    addr: Any = namer.AddrBound(frozenset(endpoint(text) for text in addrs or []))
    return namer.Bound(d.read_path(form["id"]), d.constant(addr), d.read_path(form["residual"]), form.get("weight"))


def endpoint(text: str) -> namer.Endpoint:
    host, _, port = text.rpartition(":")
    return namer.Endpoint(host, int(port)) if host else namer.Endpoint(text, 1)


def resolve(host: str, port: int, fixed: bool) -> Any:
    return d.constant(namer.AddrBound(frozenset([namer.Endpoint(host, port)])))


def addr_of(bound: namer.Bound) -> namer.Addr:
    state = bound.addr.sample()
    assert isinstance(state, d.Ok)
    found: namer.Addr = state.value
    return found


def make_namers(specs: list[Any]) -> tuple[SystemNamers, list[tuple[Path, Any]]]:
    loaded: dict[str, Any] = {}
    listed: list[tuple[Path, Any]] = []
    for spec in specs:
        prefix = d.read_path(spec["prefix"])
        made = FakeNamer(prefix, spec)
        if prefix[0] == b"$":
            loaded[prefix[1].decode()] = made
        else:
            listed.append((prefix, made))
    return SystemNamers(resolve, loaded), listed


class FakeNamer:
    def __init__(self, prefix: Path, spec: Any) -> None:
        self.prefix, self.spec = prefix, spec

    def lookup(self, path: Path) -> Any:
        kind, spec = self.spec["kind"], self.spec
        if kind == "tree":
            form = spec["tree"]
            return d.constant(d.read_tree(form) if isinstance(form, str) and form not in SYMBOLS else build(form))
        if kind == "error":
            return d.Source(d.Failed(RuntimeError(spec["message"])))
        if kind == "pending":
            return d.Source()
        if kind == "rewrite":
            return RewritingNamer(PathPattern(spec["pattern"]), spec["name"]).lookup(path)
        for name in spec["names"]:
            inner = d.read_path(name)
            if path.starts_with(inner):
                bound = namer.Bound(self.prefix.join(inner), d.constant(namer.AddrBound()), path.drop(len(inner)))
                return d.constant(tree.Leaf(bound))
        return d.constant(tree.NEG)


def check_error(error: BaseException, wanted: str) -> None:
    if isinstance(error, d.DelegationError) and error.code == wanted:
        return
    assert str(error) == wanted or wanted == "error"


def check_state(state: Any, wanted: Any) -> None:
    if wanted == "pending":
        assert isinstance(state, d.Pending)
    elif isinstance(wanted, dict) and "error" in wanted:
        assert isinstance(state, d.Failed)
        check_error(state.error, wanted["error"])
    else:
        assert state == d.Ok(build(wanted))


# -- text -----------------------------------------------------------------------------------------------------


def check_read(read: Any, vector: Vector) -> Any:
    if vector.get("error"):
        with pytest.raises(d.DtabSyntaxError) as caught:
            read(vector["in"])
        message = vector.get("message")
        if message is not None:
            assert str(caught.value) == message
        assert "^" in caught.value.caret()
        return None
    return read(vector["in"])


def path_parse(vector: Vector) -> None:
    path = check_read(d.read_path, vector)
    if path is not None:
        assert [element.hex() for element in path] == vector["elems_hex"]
        assert path.show() == vector["show"]


def path_show(vector: Vector) -> None:
    assert Path([bytes.fromhex(element) for element in vector["elems_hex"]]).show() == vector["show"]


def path_ops(vector: Vector) -> None:
    a = d.read_path(vector["a"])
    b = d.read_path(vector["b"]) if isinstance(vector["b"], str) else vector["b"]
    result = {
        "starts_with": lambda: a.starts_with(b),
        "concat": lambda: a.join(b).show(),
        "take": lambda: a.take(b).show(),
        "drop": lambda: a.drop(b).show(),
        "equal": lambda: a == b,
    }[vector["op"]]()
    assert result == vector["result"]


def prefix_parse(vector: Vector) -> None:
    prefix = check_read(d.read_prefix, vector)
    if prefix is not None:
        wanted = [None if element == "*" else bytes.fromhex(element["label_hex"]) for element in vector["elems"]]
        assert list(prefix) == wanted
        assert prefix.show() == vector["show"]


def prefix_match(vector: Vector) -> None:
    prefix, path = d.read_prefix(vector["prefix"]), d.read_path(vector["path"])
    assert prefix.matches(path) is vector["match"]
    if vector["match"] and vector.get("residual") is not None:
        assert path.drop(len(prefix)).show() == vector["residual"]


def nametree_parse(vector: Vector) -> None:
    made = check_read(d.read_tree, vector)
    if made is not None:
        assert made == build(vector["tree"])
        if vector.get("show") is not None:
            assert tree.show(made) == vector["show"]


def nametree_show(vector: Vector) -> None:
    made = build(vector["tree"])
    assert tree.show(made) == vector["show"]
    if "roundtrips" in vector:
        try:
            same = d.read_tree(vector["show"]) == made
        except d.DtabSyntaxError:
            same = False
        assert same is vector["roundtrips"]


def weight_format(vector: Vector) -> None:
    assert tree.show_weight(vector["weight"]) == vector["show"]


def dentry_parse(vector: Vector) -> None:
    dentry = check_read(d.read_dentry, vector)
    if dentry is not None:
        check_entries([dentry], vector)
        assert dentry.show() == vector["show"]


def dtab_parse(vector: Vector) -> None:
    table = check_read(d.read_dtab, vector)
    if table is not None:
        check_entries(list(table), vector)
        assert table.show() == vector["show"]


def check_entries(dentries: list[d.Dentry], vector: Vector) -> None:
    if "entries" in vector:
        wanted = [(entry["prefix"], build(entry["dst"])) for entry in vector["entries"]]
        assert [(dentry.prefix.show(), dentry.destination) for dentry in dentries] == wanted


# -- tables and trees -----------------------------------------------------------------------------------------


def dtab_lookup(vector: Vector) -> None:
    found = d.read_dtab(vector["dtab"]).lookup(d.read_path(vector["path"]))
    assert found == build(vector["tree"])
    assert tree.show(found) == vector["show"]


def dtab_ops(vector: Vector) -> None:
    a = d.read_dtab(vector["a"])
    b = d.read_dtab(vector.get("b") or "")
    op, wanted = vector["op"], vector["result"]
    if op in ("equiv", "equal"):
        assert (a.equivalent(b) if op == "equiv" else a == b) is wanted
    else:
        result = {"concat": lambda: a + b, "strip_prefix": lambda: a.strip_prefix(b), "simplified": a.simplified}[op]()
        assert result == d.read_dtab(wanted)


def simplify(vector: Vector) -> None:
    made = build(vector["tree"])
    assert tree.show(made) == vector["in"] or d.read_tree(vector["in"]) == made
    result = tree.simplify(made)
    assert result == build(vector["result"])
    assert tree.simplify(result) == result
    if "result_show" in vector:
        assert tree.show(result) == vector["result_show"]


def eval_(vector: Vector) -> None:
    found = tree.evaluate(d.read_tree(vector["in"]))
    shown = None if found is None else sorted(path.show() for path in found)
    assert shown == (None if vector["result"] is None else sorted(vector["result"]))


def nametree_equiv(vector: Vector) -> None:
    assert tree.equivalent(d.read_tree(vector["a"]), d.read_tree(vector["b"])) is vector["result"]


# -- delegation -----------------------------------------------------------------------------------------------


def delegate(vector: Vector) -> None:
    system, namers = make_namers(vector.get("namers", []))
    delegator = Delegator(system, namers, vector.get("max_depth") or 100)
    bound = delegator.bind(d.read_dtab(vector["dtab"]), d.read_path(vector["path"]))
    states: list[Any] = []
    observation = bound.observe(states.append)
    check_state(states[-1], vector["bound"])
    if "eval_ids" in vector and isinstance(states[-1], d.Ok):
        found = tree.evaluate(states[-1].value)
        shown = None if found is None else sorted({one.id.show() for one in found})
        assert shown == (None if vector["eval_ids"] is None else sorted(vector["eval_ids"]))
    observation.close()


def inet_path(vector: Vector) -> None:
    path = d.read_path(vector["path"])
    found = namer.inet_name(path.drop(2))
    assert found is not None
    host, port, used = found
    wanted = vector.get("host") or "127.0.0.1"  # of a port alone: this machine
    assert (host, port, path.drop(2 + used).show()) == (wanted, vector["port"], vector["residual"])
    assert path[1].decode() == vector["scheme"]


def lookup_state(form: Any) -> Any:
    if form == "pending":
        return d.Pending()
    if isinstance(form, dict) and "failed" in form:
        return d.Failed(RuntimeError(form["failed"]))
    return d.Ok(d.read_tree(form) if isinstance(form, str) else build(form))


class World:
    """Answers leaf paths from a table of sources, and /$/ by the system namers."""

    def __init__(self) -> None:
        self.sources: dict[Path, Any] = {}
        self.system = SystemNamers(resolve)

    def source(self, path: Path) -> Any:
        return self.sources.setdefault(path, d.Source())

    def bind(self, made: Any) -> Any:
        def compute(track: Any) -> Any:
            def ask(path: Path) -> Any:
                if path[0] == b"$":
                    return track(self.system.lookup(path) or d.constant(tree.NEG))
                return track(self.source(path))

            return Evaluation(d.Dtab(), ask).bind(made)

        return activity.Computed(compute)


def bind_states(vector: Vector) -> None:
    world = World()
    for path, form in vector["lookup"].items():
        world.source(d.read_path(path)).set(lookup_state(form))
    check_state(world.bind(d.read_tree(vector["tree"])).sample(), vector["result"])


def bind_dynamic(vector: Vector) -> None:
    world = World()
    states: list[Any] = []
    observation = world.bind(d.read_tree(vector["tree"])).observe(states.append)
    for step in vector["steps"]:
        for path, form in step["set"].items():
            world.source(d.read_path(path)).set(lookup_state(form))
        check_state(states[-1], step["expect"])
    observation.close()


def layering(vector: Vector) -> None:
    """From the lowest layer to the highest; those of a request come in its headers."""
    carried = (dtab_headers.CTX_DTAB.decode(), dtab_headers.USER_DTAB.decode())
    table = sum([d.read_dtab(text) for name, text in vector["layers"] if name not in carried], d.Dtab())
    local = dtab_headers.read_linkerd(raw([layer for layer in vector["layers"] if layer[0] in carried and layer[1]]))
    interpreter = Interpreter(InterpreterContext(table, SystemNamers(resolve)))
    check_state(interpreter.bind(d.read_path(vector["path"]), local or None).sample(), vector["bound"])


def rewriting_namers(vector: Vector) -> None:
    system = SystemNamers(resolve)
    if vector["result"] == "error":
        with pytest.raises(d.DelegationError):
            system.lookup(d.read_path(vector["path"]))
        return
    answer = system.lookup(d.read_path(vector["path"]))
    state = answer.sample() if answer is not None else d.Ok(tree.NEG)
    assert isinstance(state, d.Ok)
    if vector["result"] == "neg":
        assert state.value == tree.NEG
    elif isinstance(vector["result"], dict):
        assert state.value == build(vector["result"])
    else:
        assert state.value == tree.Leaf(d.read_path(vector["result"]))


def path_matcher(vector: Vector) -> None:
    found = PathPattern(vector["expr"]).match(d.read_path(vector["path"]))
    assert (found is not None) is vector["match"]
    if vector["match"]:
        assert found == vector["vars"]


def path_substitute(vector: Vector) -> None:
    pattern = PathPattern(vector["expr"])
    found = pattern.match(d.read_path(vector["path"]))
    assert found is not None
    assert pattern.substitute(found, vector["pattern"]) == vector["result"]


def rewrite_namer(vector: Vector) -> None:
    rewriting = RewritingNamer(PathPattern(vector["pattern"]), vector["name"])
    if vector["result"] == "error":
        with pytest.raises(d.DelegationError):
            rewriting.lookup(d.read_path(vector["path"]))
        return
    wanted = tree.NEG if vector["result"] == "neg" else tree.Leaf(d.read_path(vector["result"]))
    assert rewriting.lookup(d.read_path(vector["path"])).sample() == d.Ok(wanted)


# -- explaining -----------------------------------------------------------------------------------------------


def delegate_json(vector: Vector) -> None:
    system, namers = make_namers(vector.get("namers", []))
    evaluation = Delegator(system, namers).evaluation(d.read_dtab(vector["dtab"]), lambda act: act.sample())
    if "error" in vector["json"]:
        with pytest.raises(d.DelegationError, match=vector["json"]["error"]):
            explain.explain(evaluation, d.read_path(vector["path"]))
        return
    node = explain.explain(evaluation, d.read_path(vector["path"]))
    assert explain.to_json(node, addr_of) == vector["json"]


def build_node(form: Any) -> explain.Node:
    dentry = form.get("dentry")
    made = d.read_dentry(f"{dentry['prefix']}=>{dentry['dst']}") if dentry else None
    inner = form.get("delegate")
    parts = [(1.0, build_node(inner))] if inner else [(1.0, build_node(part)) for part in form.get("alt", [])]
    parts += [(part["weight"], build_node(part["tree"])) for part in form.get("union", [])]
    parts += [(1.0, build_node(form["tree"]))] if "tree" in form else []
    return explain.Node(form["type"], form["path"], made, parts, note=form.get("name") or form.get("value", ""))


def delegate_find(vector: Vector) -> None:
    found = explain.find(build_node(vector["tree"]), lambda node: node.note == vector["target_leaf"])
    assert (None if found is None else [list(pair) for pair in found]) == vector["result"]


def delegate_simplify(vector: Vector) -> None:
    assert explain.simplify_node(build_node(vector["tree"])) == build_node(vector["result"])


def bound_json(vector: Vector) -> None:
    addr = addr_form(vector.get("addrs", []))
    made = build(vector["tree"])
    placed = tree.map_leaves(made, lambda bound: attrs.evolve(bound, addr=d.constant(addr)))
    assert explain.tree_json(placed, addr_of) == vector["json"]


def json_codec(vector: Vector) -> None:
    assert d.read_dtab(vector["dtab"]).to_json() == vector["json"]


# -- addresses and transformers -------------------------------------------------------------------------------


def addr_form(form: Any) -> namer.Addr:
    if form == "pending":
        return namer.AddrPending()
    if form == "neg":
        return namer.AddrNeg()
    if form == "failed" or isinstance(form, dict):
        return namer.AddrFailed(form["failed"] if isinstance(form, dict) else "failed")
    return namer.AddrBound(frozenset(endpoint(text) for text in form))


def addr_union(vector: Vector) -> None:
    assert namer.union_addr([addr_form(form) for form in vector["addrs"]]) == addr_form(vector["result"])


def endpoints_state(vector: Vector) -> None:
    known: namer.Addr = namer.AddrPending()
    for step in vector["steps"]:
        known = keep_known(known, addr_form(step["addr"]))
        wanted = step["endpoints"]
        assert known == addr_form([] if wanted == "neg" else wanted)


def strip_transformer_prefix(vector: Vector) -> None:
    assert transformers.strip_prefix(d.read_path(vector["path"])).show() == vector["result"]


def netmask(vector: Vector) -> None:
    assert transformers.is_local(vector["mask"], vector["a"], vector["b"]) is vector["local"]


def transform(vector: Vector) -> None:
    kind = vector["kind"]
    if kind in ("replace", "const"):
        fixed = Delegator(SystemNamers(resolve)).bind(d.Dtab(), d.read_path(vector["path"])).sample()
        assert isinstance(fixed, d.Ok)
        given = build(vector["in_tree"])
        made = transformers.replace(given, fixed.value) if kind == "replace" else transformers.const(fixed.value)
        assert made == build(vector["out_tree"])
        return
    if kind == "port":
        prefix, change = Path.of("io.l5d.port", str(vector["port"])), transformers.port(vector["port"])
    else:
        prefix = d.read_path(vector["prefix"])
        if kind == "subnet_local":
            change = transformers.subnet_local(vector["local"], vector["netmask"])
        else:
            assert kind == "subnet_gateway"
            change = transformers.subnet_gateway([endpoint(text) for text in vector["gateways"]], vector["netmask"])
    bound = transformers.transform_bound(make_bound(vector["in"], vector["in"]["addrs"]), prefix, change)
    wanted = vector["out"]
    assert (bound.id.show(), bound.residual.show()) == (wanted["id"], wanted["residual"])
    assert addr_of(bound) == addr_form(wanted["addrs"])


# -- the router's own -----------------------------------------------------------------------------------------


def raw(headers: list[list[str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


def http_header(vector: Vector) -> None:
    read = dtab_headers.read_finagle if vector["kind"] == "finagle" else dtab_headers.read_linkerd
    if "error" in vector:
        with pytest.raises(d.DtabError) as caught:
            read(raw(vector["headers"]))
        assert str(caught.value) == vector["error"]
        return
    before = d.read_dtab(vector.get("local_before") or "")
    assert (before + read(raw(vector["headers"]))).show() == vector["dtab"]


def http_write(vector: Vector) -> None:
    write = dtab_headers.write_finagle if vector["kind"] == "finagle" else dtab_headers.write_linkerd
    table = d.read_dtab(vector["dtab"])
    if vector.get("error"):
        with pytest.raises(d.DtabError):
            write(table)
        return
    field = write(table)
    assert (
        (vector["header"], vector["value"]) == (None, None)
        if field is None
        else raw([[vector["header"], vector["value"]]]) == [field]
    )


def static_configs(vector: Vector) -> None:
    configs = [(PathPattern(config["prefix"]), config["params"]) for config in vector["configs"]]
    assert static_params(configs, d.read_path(vector["path"])) == vector["result"]


def distribution(vector: Vector) -> None:
    made = build(vector["tree"], str)
    shares = probabilities(made, retain_unreachable=vector.get("retain_unreachable", True))
    named = {"no_brokers" if value is None else value: share for value, share in shares.items()}
    wanted = {name: share for name, share in vector["probabilities"].items() if share}
    assert {name: share for name, share in named.items() if share} == pytest.approx(wanted)


def dyn_factory(vector: Vector) -> None:
    binding: DynBinding[str] = DynBinding()
    waiters: dict[str, Any] = {}
    cancelled: set[str] = set()

    def outcome(name: str) -> str:
        if name in cancelled:
            return "cancelled"
        waiter = waiters[name]
        if not waiter.woken:
            return "queued"
        try:
            next(waiter.__await__())
        except StopIteration as done:
            return f"served:{done.value}"
        except ClosedError:
            return "closed"
        except RuntimeError as error:
            return f"failed:{error}"
        raise AssertionError("a woken waiter parked")

    for step in vector["steps"]:
        if step["op"] == "request":
            waiters[step["id"]] = binding.request()
        elif step["op"] == "cancel":
            if not waiters[step["id"]].woken:
                cancelled.add(step["id"])
            binding.cancel(waiters[step["id"]])
        elif step["op"] == "close":
            binding.close()
        elif step["state"] == "ok":
            binding.named(step["tree"])
        elif step["state"] == "failed":
            binding.failed(RuntimeError(step["error"]))
        else:
            assert step["state"] == "pending"
        if "status" in step["expect"]:
            assert binding.status == step["expect"]["status"]
        for name, wanted in step["expect"]["requests"].items():
            assert outcome(name) == wanted


def dtab_source(vector: Vector) -> None:
    source = DtabSource()
    for step in vector["steps"]:
        event = step["event"]
        if isinstance(event, dict):
            state = source.put(event["put"])
        elif any(word in event for word in ("deleted", "removed", "absent", "missing", "not found")):
            state = source.absent()
        else:
            assert "error" in event or "fail" in event, f"nothing here knows the event {event!r}"
            state = source.failed(RuntimeError(event))
        wanted = step["state"]
        if isinstance(wanted, dict):
            assert isinstance(state, d.Ok)
            assert state.value.show() == wanted["ok"]
        else:
            assert type(state).__name__.lower() == wanted


def stabilize(vector: Vector) -> None:
    source: d.Source[str] = d.Source()
    seen: list[Any] = []
    observation = source.stabilize().observe(seen.append)
    for step in vector["steps"]:
        source.set(stable_state(step["in"]))
        assert seen[-1] == stable_state(step["out"])
    observation.close()


def stable_state(text: str) -> Any:
    kind, _, value = text.partition(":")
    return {"pending": d.Pending(), "failed": d.Failed(RuntimeError(value)), "ok": d.Ok(value)}[kind]


CHECKS = {
    "path_parse": path_parse, "path_show": path_show, "path_ops": path_ops, "prefix_parse": prefix_parse,
    "prefix_match": prefix_match, "nametree_parse": nametree_parse, "nametree_show": nametree_show,
    "weight_format": weight_format, "dentry_parse": dentry_parse, "dtab_parse": dtab_parse,
    "dtab_lookup": dtab_lookup, "dtab_ops": dtab_ops, "simplify": simplify, "eval": eval_,
    "nametree_equiv": nametree_equiv, "delegate": delegate, "inet_path": inet_path, "bind_states": bind_states,
    "bind_dynamic": bind_dynamic, "dyn_factory": dyn_factory, "endpoints_state": endpoints_state,
    "addr_union": addr_union, "distribution": distribution, "http_header": http_header, "http_write": http_write,
    "rewriting_namers": rewriting_namers, "path_matcher": path_matcher, "path_substitute": path_substitute,
    "rewrite_namer": rewrite_namer, "static_configs": static_configs, "delegate_json": delegate_json,
    "delegate_find": delegate_find, "delegate_simplify": delegate_simplify,
    "strip_transformer_prefix": strip_transformer_prefix, "json_codec": json_codec, "layering": layering,
    "transformers": transform, "netmask": netmask, "stabilize": stabilize, "dtab_source": dtab_source,
    "bound_json": bound_json,
}  # fmt: skip
