"""YAML with lines: where things stand, and what is refused before any field is looked at."""

import pytest

from retrain_assets.spec.source_lines import YamlProblem, parse_yaml


def _refused(text):
    with pytest.raises(YamlProblem) as caught:
        parse_yaml(text)
    return caught.value.found


def test_every_key_and_item_has_its_line():
    document = parse_yaml("a: 1\nb:\n  c: 2\n  d:\n    - 3\n    - {e: 4}\n")
    assert document.data == {"a": 1, "b": {"c": 2, "d": [3, {"e": 4}]}}
    assert document.lines == {
        ("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "d"): 4, ("b", "d", 0): 5, ("b", "d", 1): 6,
        ("b", "d", 1, "e"): 6,
    }  # fmt: skip


def test_a_path_that_is_not_in_the_file_has_the_line_of_its_nearest_parent():
    document = parse_yaml("\n\na: 1\nb:\n  c: 2\n")
    assert document.line_of(("b", "missing", "deeper")) == 4
    assert document.line_of(("missing",)) == 1
    assert document.line_of(()) == 1


def test_windows_line_ends_and_a_byte_order_mark_do_not_shift_lines():
    document = parse_yaml("\ufeffa: 1\r\nb: 2\r\n")
    assert document.data == {"a": 1, "b": 2}
    assert document.lines[("b",)] == 2


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_says_how_to_get_a_spec(text):
    ((line, message),) = _refused(text)
    assert line == 1
    assert message == "the file is empty; `retrain new NAME` writes a commented spec"


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "42\n", "---\n"])
def test_anything_but_a_mapping_is_refused(text):
    ((line, message),) = _refused(text)
    assert line == 1
    assert message == "must be a mapping of fields (name: …), not a list or a text"


def test_all_duplicate_keys_are_named_with_the_line_of_the_first():
    text = "a: 1\nb: {c: 1, c: 2}\na: 3\nb2:\n  - x: 1\n    x: 2\n"
    assert _refused(text) == [
        (2, "b.c: given twice, first on line 2"),
        (3, "a: given twice, first on line 1"),
        (6, "b2.0.x: given twice, first on line 5"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [1, 2\n", 2, "not valid YAML: did not find expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML: found a tab character that violates indentation"),
        ("a: 1\nb: c: d\n", 2, "not valid YAML: mapping values are not allowed in this context"),
        ("a: 1\nb: *nowhere\n", 2, "not valid YAML: found undefined alias"),
        ("a: 1\nb: 'open\n", 2, "not valid YAML: found unexpected end of stream"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML: but found another document"),
        ("a: 1\nb: x\0y\n", 2, "not valid YAML: contains the character '\\x00'"),
        ("a: 1\nb: x\x1by\n", 2, "not valid YAML: contains the character '\\x1b'"),
    ],
)
def test_broken_yaml_has_its_line(text, line, message):
    ((found_line, found),) = _refused(text)
    assert found == message
    assert found_line == line


def test_a_date_that_does_not_exist_is_found_where_it_stands():
    ((line, message),) = _refused("a: 1\nb:\n  c: 2024-02-30\n")
    assert line == 3
    assert message == (
        "2024-02-30 cannot be read (day is out of range for month); correct it or quote it"
    )


def test_a_whole_number_too_long_to_read_is_refused():
    ((line, message),) = _refused("a: 1\nb: " + "9" * 5000 + "\n")
    assert line == 2
    assert message.startswith("9999")
    assert len(message) < 250


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ("!!timestamp soon", "!!timestamp"), ("!!bool maybe", "!!bool"), ("!!int ''", "!!int"),
        ("!!float 'x'", "!!float"), ("!!set {a, b}", "!!set"), ("!!binary aGk=", "!!binary"),
        ("!!omap [a: 1]", "!!omap"), ("!secret x", "!secret"),
        ("!!python/object/apply:os.system ['true']", "!!python/object/apply:os.system"),
    ],
)  # fmt: skip
def test_tags_are_refused_and_run_nothing(value, tag):
    assert _refused(f"a: 1\nb: {value}\n") == [
        (2, f"tag {tag} is not supported; write the value without")
    ]


@pytest.mark.parametrize("key", ["1", "1.5", "yes", "~", "null", "2024-01-01"])
def test_keys_that_yaml_reads_as_something_else_than_text_must_be_quoted(key):
    assert _refused(f"a: 1\nb:\n  {key}: x\n") == [
        (3, f"keys must be text: write '{key}' in quotes")
    ]
    assert parse_yaml(f"a: 1\nb:\n  '{key}': x\n").data == {"a": 1, "b": {key: "x"}}


def test_a_mapping_or_a_list_as_key_is_refused():
    assert _refused("? [a, b]\n: 1\n") == [(1, "keys must be plain text")]


def test_anchors_are_expanded_and_keep_their_own_lines():
    document = parse_yaml("a: &x\n  b: 1\nc: *x\n")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.lines[("c",)] == 3
    assert document.lines[("c", "b")] == 2  # where the value stands


def test_a_merge_key_may_be_overridden_and_is_no_duplicate():
    text = "base: &b\n  x: 1\n  y: {z: 2}\nuse:\n  <<: *b\n  x: 5\n"
    document = parse_yaml(text)
    assert document.data["use"] == {"x": 5, "y": {"z": 2}}
    assert document.lines[("use", "x")] == 6
    assert document.lines[("use", "y", "z")] == 3


def test_of_several_merged_mappings_the_first_wins_as_in_the_data():
    text = "b1: &b1\n  x: 1\nb2: &b2\n  x: 2\n  y: 3\nuse:\n  <<: [*b1, *b2]\n"
    document = parse_yaml(text)
    assert document.data["use"] == {"x": 1, "y": 3}
    assert document.lines[("use", "x")] == 2
    assert document.lines[("use", "y")] == 5


def test_a_merge_key_with_anything_but_mappings_is_refused():
    assert _refused("a: 1\n<<: [b, 2]\n") == [
        (2, "`<<` must be given a mapping, or a list of mappings")
    ]


def test_a_duplicate_inside_an_anchor_is_reported_wherever_it_is_used():
    assert _refused("a: &x {b: 1, b: 2}\nc: *x\nd: {<<: *x}\n") == [
        (1, "a.b: given twice, first on line 1"),
        (1, "c.b: given twice, first on line 1"),
        (1, "d.b: given twice, first on line 1"),
    ]


def test_an_anchor_inside_itself_is_refused():
    assert _refused("a: 1\nb: &x\n  c: *x\n") == [(2, "an anchor that contains itself")]


@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")]
)
def test_nesting_that_would_overflow_the_stack_is_refused(opening, closing):
    text = "a: 1\nb: " if opening in ("[", "{a: ") else ""
    ((line, message),) = _refused(text + opening * 200_000 + closing * 200_000 + "\n")
    assert message == "nested more than 50 levels deep"
    assert line == (2 if text else 1)


def test_fifty_levels_are_read():
    assert parse_yaml("a: " + "[" * 49 + "]" * 49).lines[("a",)] == 1


@pytest.mark.parametrize("merge", [False, True])
def test_anchors_that_grow_without_bound_are_refused(merge):
    lines = ["a0: &a0 {x: 1, y: 2}"]
    for n in range(1, 30):
        two = f"*a{n - 1}, *a{n - 1}"
        lines.append(f"a{n}: &a{n} " + (f"{{<<: [{two}]}}" if merge else f"[{two}]"))
    ((_, message),) = _refused("\n".join(lines))
    assert message == "more than 100000 values, anchors expanded"
