"""Values in files of oslo.config's kind: read as oslo does, and changed without changing anything else."""

from __future__ import annotations

from stacklab.inifile import value_of, with_value

TEXT = """\
# password = in a comment
[DEFAULT]
password = of-the-default
[keystone_authtoken]   # the one that is meant
 continued = and
username = cinder
password =\told\t
password_file = none
[nova]
password = of-nova
[keystone_authtoken]
#password = in a comment
"""


def test_the_value_is_that_of_the_section_and_the_key() -> None:
    assert value_of(TEXT, "keystone_authtoken", "password") == "old"
    assert value_of(TEXT, "nova", "password") == "of-nova"
    assert value_of(TEXT, "keystone_authtoken", "pass") is None
    assert value_of(TEXT, "glance", "password") is None


def test_of_two_values_the_last_one_counts() -> None:
    twice = TEXT + "password=late\r\n"
    assert value_of(twice, "keystone_authtoken", "password") == "late"
    assert with_value(twice, "keystone_authtoken", "password", "new") == TEXT + "password=new\r\n"


def test_the_way_back_is_the_same_to_the_last_byte() -> None:
    changed = with_value(TEXT, "keystone_authtoken", "password", r"\1 new")
    assert changed == TEXT.replace("\told\t", "\t\\1 new\t")
    assert with_value(changed, "keystone_authtoken", "password", "old") == TEXT


def test_a_key_or_a_section_that_is_not_there_is_added() -> None:
    added = with_value(TEXT, "nova", "user", "nova")
    assert added == TEXT.replace("[nova]\n", "[nova]\nuser = nova\n")
    assert with_value(TEXT, "keystone_authtoken", "url", "x").count("[keystone_authtoken]") == 2  # no third one
    assert with_value(TEXT, "glance", "password", "new") == TEXT + "\n[glance]\npassword = new\n"


MULTILINE = """\
[filter:cors]
# who may ask
allowed = http://a,
  http://b,
\thttp://c
max_age = 60

[DEFAULT]
"""


def test_a_value_over_several_lines_is_read_and_replaced_whole() -> None:
    assert value_of(MULTILINE, "filter:cors", "allowed") == "http://a,\nhttp://b,\nhttp://c"
    changed = with_value(MULTILINE, "filter:cors", "allowed", "http://d")
    assert changed == MULTILINE.replace("http://a,\n  http://b,\n\thttp://c", "http://d")
    several = with_value(changed, "filter:cors", "allowed", "http://e,\nhttp://f")
    assert value_of(several, "filter:cors", "allowed") == "http://e,\nhttp://f"
    assert value_of(several, "filter:cors", "max_age") == "60"


def test_a_value_can_be_taken_away_and_what_was_added_leaves_no_trace() -> None:
    assert (
        with_value(MULTILINE, "filter:cors", "allowed", None)
        == "[filter:cors]\n# who may ask\nmax_age = 60\n\n[DEFAULT]\n"
    )
    added = with_value(MULTILINE, "DEFAULT", "debug", "true")
    assert with_value(added, "DEFAULT", "debug", None) == MULTILINE


def test_a_section_whose_head_ends_the_file_gets_its_value_on_a_line_of_its_own() -> None:
    assert with_value("[nova]", "nova", "interface", "internal") == "[nova]\ninterface = internal\n"
