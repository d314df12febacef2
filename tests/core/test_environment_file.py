"""core/environment_file: the syntax of systemd's EnvironmentFile=, and a fault where systemd passes over a
line.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core.environment_file import parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("\n \t\r\n# A=1\n  ;B=2\n#", {}),
        ("A=1\nB=two words\r\nA=3", {"A": "3", "B": "two words"}),
        ("  A =  x \t\n", {"A": "x"}),
        ("A=\nB=", {"A": "", "B": ""}),
        ("A=a#b ;c", {"A": "a#b ;c"}),
        ("A='x  y'  \nB=\" z \"", {"A": "x  y", "B": " z "}),
        ("A='one\ntwo'\nB=1", {"A": "one\ntwo", "B": "1"}),
        ("A='x'\"y\" z", {"A": "xyz"}),
        ('A=it\'s "so"', {"A": 'it\'s "so"'}),
        ("A=one\\\n  two\nB=1", {"A": "one  two", "B": "1"}),
        ("A=\\n\\\\\\ \\'", {"A": "n\\ '"}),
        ("A=x\\  \n", {"A": "x "}),
        ("A=x\\", {"A": "x"}),
        ("A='\\n\\'", {"A": "\\n\\"}),
        ('A="\\$x \\`y\\` \\"z\\" \\\\ \\n one\\\ntwo"', {"A": '$x `y` "z" \\ \\n onetwo'}),
        ("# a comment \\\nA=1", {"A": "1"}),
        ("A=$HOME %h ~", {"A": "$HOME %h ~"}),
        ("A==b=c", {"A": "=b=c"}),
        ("É=1".replace("É", "E"), {"E": "1"}),
    ],
)
def test_a_file_is_read_as_systemd_reads_it(text: str, expected: dict[str, str]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("A=1\n\nsecret\nB=2", 3, "expected NAME=value"),
        ("export secret=1", 1, "expected NAME=value"),
        ("A='one\ntwo'\n1secret=3", 3, "expected NAME=value"),
        ("=secret", 1, "expected NAME=value"),
        ("A=1\nB='secret\n\n", 2, "not closed, expected '"),
        ('A=1\n\nB="secret\\"', 3, 'not closed, expected "'),
        ("A=1\nB=sec\0ret", 2, "NUL"),
    ],
)
def test_a_fault_names_the_line_and_nothing_of_the_file(text: str, line: int, word: str) -> None:
    with pytest.raises(ValueError, match=f"^{line}: ") as fault:
        parse(text)
    assert word in str(fault.value)
    assert "secret" not in str(fault.value)


@given(st.text(alphabet="AB=\\'\" \t\r\n#;$é\0", max_size=40))
def test_any_text_is_read_or_has_a_fault_with_its_line(text: str) -> None:
    try:
        found = parse(text)
    except ValueError as error:
        line, found = str(error).partition(":")[0], {}
    else:
        line = "1"
    assert 1 <= int(line) <= text.count("\n") + 1
    assert all("\0" not in value for value in found.values())


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,3}", fullmatch=True), st.text(alphabet="a\\'\" \t\r\n#$")))
def test_quoted_values_are_kept_as_they_are(variables: dict[str, str]) -> None:
    escaped = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        for name, value in variables.items()
    }
    assert parse("".join(f'{name}="{value}"\n' for name, value in escaped.items())) == variables
