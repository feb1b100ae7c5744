"""Templates print what docker's and podman's print, and say what they do not understand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.cli.template import Open, compiled
from imagefs.errors import InvalidTemplate

RECORD = {
    "ID": "abc",
    "Tags": ["one", "two"],
    "Labels": {"b": "2", "a": "1"},
    "Config": {"Env": ["PATH=/bin"], "User": "", "Missing": None},
    "Size": 5,
    "Ready": True,
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("{{.ID}}", "abc"),
        ("{{ .ID }}:{{.Size}}", "abc:5"),
        (r"{{.ID}}\t{{.Size}}\n", "abc\t5\n"),
        ("{{.Tags}} {{.Labels}} {{.Ready}}", "[one two] map[a:1 b:2] true"),
        ("{{.Config.Env}}", "[PATH=/bin]"),
        ("{{.Config.Missing}}", "<no value>"),
        ("{{json .Tags}}", '["one","two"]'),
        ("{{json .Config}}", '{"Env":["PATH=/bin"],"User":"","Missing":null}'),
        ("{{.ID | upper}}", "ABC"),
        ("{{upper .ID | lower | printf \"%5s|\"}}", "  abc|"),
        ('{{printf "%-5s%d%%" .ID .Size}}', "abc  5%"),
        ('{{index .Labels "a"}} {{index .Tags 1}}', "1 two"),
        ('{{join .Tags ", "}}', "one, two"),
        ('{{range .Tags}}<{{.}}>{{end}}', "<one><two>"),
        ("{{range .Labels}}{{.}} {{end}}", "1 2 "),
        ("{{range .Config.Missing}}x{{else}}none{{end}}", "none"),
        ("{{if .Ready}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Config.User}}yes{{else}}no{{end}}", "no"),
        ('{{if eq .ID "x"}}x{{else if eq .ID "abc"}}found{{else}}y{{end}}', "found"),
        ("{{if and .Ready (not .Config.User)}}both{{end}}", "both"),
        ("a  {{- .ID -}}  b", "aabcb"),
        ("{{/* nothing */}}x", "x"),
        ("{{len .Tags}}{{len .ID}}", "23"),
        ('{{truncate .ID 2}}{{"x"}}{{`raw\\n`}}', "abxraw\\n"),
    ],
)  # fmt: skip
def test_what_people_use_is_understood(template: str, expected: str) -> None:
    assert compiled(template)(RECORD) == expected


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{.Nothing}}", "there is no field 'Nothing'; known are Config, ID"),
        ("{{.ID.More}}", "there is no field 'More'"),
        ("{{.ID", "has no counterpart"),
        ("{{}}", "an action is empty"),
        ("{{if .ID}}x", "a if has no end"),
        ("{{end}}", "an end belongs to no if or range"),
        ("{{else}}", "an else belongs to no if or range"),
        ("{{frobnicate .ID}}", "there is no function 'frobnicate'; known are json"),
        ("{{.ID | .Size}}", "only a function can come behind |"),
        ("{{with .ID}}x{{end}}", "there is no function 'with'"),
        ("{{$x := .ID}}", "'$x := .ID' is not understood"),
        ("{{(.ID}}", "a ( has no )"),
        ("{{.ID .Size}}", "'.Size' was not expected there"),
        ("{{range .ID}}x{{end}}", "range: abc is no list"),
        ("{{index .Tags 9}}", "there is no 9 in [one two]"),
        ("{{upper}}", "missing"),
        ("{{" + "(" * 100 + ".ID" + ")" * 100 + "}}", "parentheses inside each other"),
        ("{{if .ID}}" * 60, "blocks inside each other"),
        ("x" * 70_000, "expected at most 65536 characters"),
    ],
)
def test_what_is_not_understood_is_said(template: str, reason: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        compiled(template)(RECORD)
    assert reason in str(caught.value)


PIECES = st.sampled_from(
    ["{{", "}}", ".ID", "if ", "end", "range ", "else", "|", "(", ")", '"x"', "json ", " ", "-", "index ", "0"]
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=20).map("".join))
def test_any_text_gives_text_or_one_kind_of_error(template: str) -> None:
    try:
        assert isinstance(compiled(template)(RECORD), str)
    except InvalidTemplate:
        pass


def test_a_key_that_somebody_might_have_made_up_may_be_missing() -> None:
    record = {"Labels": Open({"there": "yes"})}
    fill = compiled("{{.Labels.there}} {{.Labels.none}} {{if .Labels.none}}x{{else}}y{{end}} {{.Labels.none.deeper}}")
    assert fill(record) == "yes <no value> y <no value>"
