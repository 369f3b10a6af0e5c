"""The IR as text: printing and parsing are inverse, and what does not parse says where."""

import pytest

from irsplit.base.errors import ParseError, VerifyError
from irsplit.ir import Model, equal, parse_model, print_graph, print_model, verify

EVERYTHING = """\
model test
graph @main(%x: f32[batch,8], %"a/b:0": i64["p2o.Dim.0",?], \
%k: f32[2] = 0x0000803f00000040) -> (%y, %x) {
  const %w: f32[8] = weights.bin[128:32]
  const %s: str[1] = 0x6869 as test.strings
  %r = test.op(%x, _, %w) "first" : f32[batch,8]
  %q, _ = test.split(%r) states "a", "b" random {alpha=-0.5, mode="up"} : u8[1,8] q(0.5:128), _
  %p = test.attributes() {raw=0x00ff, list=[1, [2.5, null], true]} : ?
  %c = test.call(%q) calls @helper : i8[2,4] q(0.5:0, 1e-07:-3; axis 0)
  %y = test.if(%c) "" : ? with {
    graph @then(%i: !"sequence(f32)") -> (%t) {
      %t = test.op(%r, %i) : f32[*]
    }
    graph @device() -> (%t) on none {
      %t = test.op(%x) : f32[]
    }
  }
}
graph @helper(%x: u8[1,8]) -> (%x) {
}
""".replace(' "" :', " :")

SEGMENTS = """\
model test
graph @device(%x: f32[1,8]) {
  %r = test.op(%x) : f32[1,8]
  irsplit.send 0 %r {codec=["zstd"]}
}
graph @middle() on server {
  %r = irsplit.recv 0 : f32[1,8]
  irsplit.send 1 %r
}
graph @server() -> (%y) {
  %r = irsplit.recv 1 : f32[1,8]
  %y = test.op(%r) : f32[1,8]
}
"""


@pytest.mark.parametrize("text", [EVERYTHING, SEGMENTS])
def test_printing_what_was_parsed_gives_the_same_text(text: str) -> None:
    model = parse_model(text)
    verify(model)
    assert print_model(model) == text
    assert equal(model, parse_model(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [("%y, %x)", "%x, %y)"), ("alpha=-0.5", "alpha=0.5"), ("[128:32]", "[132:32]"),
     ("u8[1,8] q", "u8[1,9] q"), ('"a", "b"', '"a"'), ("%r, %i)", "%i, %r)"), (" random", ""),
     ('"first"', '"second"'), ("40) ->", "41) ->")],
)  # fmt: skip
def test_models_that_differ_are_not_equal(old: str, new: str) -> None:
    assert old in EVERYTHING
    assert not equal(parse_model(EVERYTHING), parse_model(EVERYTHING.replace(old, new)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "graph @m() {\n  %a = test.op(%b) : f32[1]\n}",
            "line 2, column 16: %b is not defined before its use",
        ),
        (
            "graph @m() {\n  %a = test.op() : f33[1]\n}",
            "line 2, column 20: unknown element type 'f33'",
        ),
        ("graph @m() {", "line 1, column 13: expected a name, found 'the end'"),
        ("graph @m(%a: f32[1] = 0x0) {}", "even number of hexadecimal digits"),
        ("graph @m() { ~ }", "unexpected character '~'"),
        (
            "graph @m() { test.op() calls @gone }",
            "test.op calls @gone, which the text does not define",
        ),
    ],
)
def test_what_does_not_parse_says_where(text: str, message: str) -> None:
    with pytest.raises(ParseError) as error:
        parse_model(text)
    assert message in str(error.value)


def test_verify_shows_the_graph_around_the_node() -> None:
    model = parse_model(
        "graph @main(%x: f32[1]) -> (%b) { %a = t.A(%x) : f32[1] %b = t.B(%a) : f32[1] }"
    )
    model.entry.nodes.reverse()
    with pytest.raises(VerifyError) as error:
        verify(model)
    assert str(error.value) == (
        "input 0 (%a) of t.B is used before it is produced; insert the producer before this node\n"
        "  in graph @main:\n  >   0  %b = t.B(%a) : f32[1]\n      1  %a = t.A(%x) : f32[1]"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("irsplit.recv 1", "irsplit.recv 2",
         "boundary 2 is received, but the segment before does not send it"),
        ("irsplit.send 1 %r", "irsplit.send 0 %r",
         "received, but the segment before does not send it"),
        ("irsplit.recv 1 : f32[1,8]", "irsplit.recv 1 : f32[1,9]",
         "received with other types than sent"),
        ("  irsplit.send 1 %r\n", "  irsplit.send 1 %r\n  irsplit.send 2 %r\n",
         "boundary 2 is sent, but the next"),
        ("@middle", "@device", "two graphs are named @device"),
    ],
)  # fmt: skip
def test_verify_holds_boundaries_together(old: str, new: str, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        verify(parse_model(SEGMENTS.replace(old, new)))


def test_str_is_the_text_and_repr_is_one_line():
    model = parse_model(
        'graph @device(%x: f32[1,8]) -> (%y) { %y = test.op(%x) "first" : f32[1,8] }'
    )
    graph, node = model.entry, model.entry.nodes[0]
    assert str(model) == print_model(model)
    assert str(graph) == print_graph(graph)
    entry = "<Graph @device on device: 1 input, 1 node, 1 output>"
    assert repr(graph) == entry
    assert repr(model) == f"<Model of test: 1 graph, entry {entry}>"
    assert [repr(node), repr(graph.inputs[0])] == ["test.op 'first'", "%x"]
    assert repr(Model("test", [])) == "<Model of test: no graphs>"
