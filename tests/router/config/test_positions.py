"""Where in the file things stand: every style of scalar, every line end, text of every width."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config.load import Loaded, load_file, load_text
from router.config.plugins import Registry

REGISTRY = Registry()
HEAD = "routers:\n- protocol: http\n"


def load(text: str) -> Loaded:
    return load_text(text, "t.yaml", REGISTRY)


def places(text: str) -> list[tuple[int, int]]:
    return [(problem.line, problem.column) for problem in load(text).problems]


def marked(text: str) -> tuple[str, tuple[int, int]]:
    """The text without its mark ``@``, and the line and column where the mark was."""
    before = text.partition("@")[0]
    return text.replace("@", "", 1), (before.count("\n") + 1, len(before) - before.rfind("\n"))


@pytest.mark.parametrize(
    "dtab",
    [
        "|\n    /a => /b ;\n    /c => @& ;\n",
        "|\n\n    /a => /b ;\n    /c => @& ;\n",
        "|2-  # indentation and chomping\n      /a => /b ;\n    /c => @& ;\n",
        "|\n    # é and 😀 in a comment\n    /a => /b ; /c => @& ;\n",
        ">-\n    /a => /b ;\n    /c => @& ;\n",
        ">\n    /a\n      => /b ;\n\n\n    /c =>\n      @& ;\n",
        "/a => @& ;\n",
        "/a => /b ;\n    /c =>\n\n      @& ;\n",
        "'/a => /b ;\n    /c => @& ;'\n",
        '"/a => /b ;\n    /c => @& ;"\n',
        '"# a comment\\n/a =>\\t/b ;\\\n    /c => @& ;"\n',
        "&table # the table\n   /a => @& ;\n",
        "!!str /a => @& ;\n",
        "\n    /a => /b ; /c => @& ;\n",
        "|\n    /a => /b ;\n    /c => /d @&",
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_an_error_in_a_dtab_points_into_the_file(dtab: str, line_end: str) -> None:
    text, place = marked(HEAD + "  dtab: " + dtab)
    if dtab.endswith("@&"):
        place = (place[0], place[1] + 1)  # the error is that the text ends here
    assert places(text.replace("\n", line_end)) == [place]


@pytest.mark.parametrize("style", ["|\n    ", ">-\n    ", "\n    ", "'", '"'])
def test_every_dentry_knows_its_place(style: str) -> None:
    end = style if style in ("'", '"') else ""
    text = f"{HEAD}  dtab: {style}/a => /b ;\n    /c =>\n      /d ; /e => /f{end}\n"
    loaded = load(text)
    assert loaded.config is not None, loaded.render()
    lines = text.split("\n")
    table = loaded.config.routers[0].base.dtab
    assert len(table) == 3
    for dentry, prefix in zip(table, ("/a", "/c", "/e"), strict=True):
        assert lines[dentry.line - 1][dentry.column - 1 :].startswith(prefix)


def test_an_escape_that_hides_characters_leads_to_the_beginning_of_the_scalar() -> None:
    text, place = marked(HEAD + '  dtab: @"/\\x61 => & ;"\n')
    assert places(text) == [place]


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "  @labl: 1\n",
        "\ufeff" + HEAD + "  @labl: 1\n",
        "routers:\n- {label: é😀, @labl: 1, protocol: http}\n",
        '{\n\t"routers": [\n\t\t{"protocol": "http",\n\t\t@"labl": 1}\n\t]\n}',
        HEAD + "  servers:\n  - port: 1\n  - @prt: 2\n",
        HEAD + "@\tlabel: x\n",
        HEAD + "  label: é@\x07\n",
        HEAD + "  label: " + "[" * 97 + "@[",
    ],
)
def test_keys_values_and_broken_texts(text: str) -> None:
    text, place = marked(text)
    assert places(text)[0] == place
    assert places(text.replace("\n", "\r\n"))[0] == place


def test_a_byte_order_mark_in_a_file_takes_no_room(tmp_path: object) -> None:
    path = f"{tmp_path}/bom.yaml"
    with open(path, "wb") as file:
        file.write(b"\xef\xbb\xbfrouterz: 1\n")
    assert load_file(path, REGISTRY).problems[0].column == 1


def test_the_caret_stands_below_what_it_means() -> None:
    rendered = load('{"routers": [\n\t{"protocol": "http",\t"labl": 1}]}').render().split("\n")
    assert rendered[2].index("^") == rendered[1].index('"labl"')


def test_a_snippet_has_nothing_that_steers_a_terminal() -> None:
    assert "\x1b" not in load("routers: \x1b[2J").render()


def test_without_a_place_only_the_name_is_shown() -> None:
    assert load_file("/does/not/exist", REGISTRY).render().startswith("/does/not/exist: error: cannot read the file")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(["/a => /b", "/svc/*/x => /e", "/x => 0.5 * /y & 0.5 * /z | !"]),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.sampled_from([" ;\n    ", " ; ", ";\n\n      ", "  ;\n    # a comment: # 😀\n    "]), min_size=5, max_size=5),
)
def test_dentries_of_literal_blocks_stand_where_they_are_said_to(dentries: list[str], gaps: list[str]) -> None:
    body = "".join(dentry + gap for dentry, gap in zip(dentries, gaps, strict=False))
    text = f"{HEAD}  dtab: |\n    {body}\n"
    loaded = load(text)
    assert loaded.config is not None, loaded.render()
    lines = text.split("\n")
    for dentry, written in zip(loaded.config.routers[0].base.dtab, dentries, strict=True):
        assert lines[dentry.line - 1][dentry.column - 1 :].startswith(written.strip())
