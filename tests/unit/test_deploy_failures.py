"""A failed stack.sh explained from its log. The excerpts are ours, in the form that DevStack's source gives its lines."""

from __future__ import annotations

import re
from textwrap import dedent

import pytest

from stacklab.deploy.stack.failures import Diagnosis, Failure, catalogue, diagnose

STAMP = "2026-11-22 10:00:00.123 | "


def log(text: str, *, stamped: bool = True) -> str:
    lines = dedent(text).strip("\n").splitlines()
    return "".join(f"{STAMP if stamped else ''}{line}\n" for line in lines)


TRAP = """\
+ ./stack.sh:exit_trap:521                 :   local r=1
++ ./stack.sh:exit_trap:522                 :   jobs -p
Error on exit
World dumping... see /opt/stack/logs/worlddump-2026-11-22-100000.txt for details
"""


def test_words_of_die_are_the_failing_command_and_their_place() -> None:
    found = diagnose(
        log(
            """
            + lib/glance:start_glance:351              :   run_process g-api '/usr/bin/uwsgi --ini /etc/glance/glance-uwsgi.ini'
            Waiting for g-api (192.0.2.7) to start...
            + lib/glance:start_glance:354              :   wait_for_service 60 http://192.0.2.7/image
            + functions:wait_for_service:441           :   return 124
            + lib/glance:start_glance:355              :   die 355 'g-api did not start'
            + functions-common:die:186                 :   local exitcode=0
            [Call Trace]
            ./stack.sh:1281:start_glance
            /opt/stack/devstack/lib/glance:355:die
            [ERROR] /opt/stack/devstack/lib/glance:355 g-api did not start
            Error on exit
            """
        )
    )
    assert (found.command, found.line) == ("g-api did not start", "lib/glance:355")
    assert found.known == "service-start"
    assert found.retry == "after-unstack"
    assert "Error on exit" not in found.excerpt


def test_the_last_command_of_the_function_that_the_trap_names_is_the_failing_one() -> None:
    found = diagnose(
        log(
            """
            + functions-common:restart_service:2309    :   '[' -x /bin/systemctl ']'
            + functions-common:restart_service:2310    :   sudo /bin/systemctl restart httpd
            Job for httpd.service failed because the control process exited with error code.
            + functions-common:restart_service:1       :   exit_trap
            """
        )
        + log(TRAP)
    )
    assert found.command == "sudo /bin/systemctl restart httpd"
    assert found.line == "functions-common:2310"
    assert found.known == "apache"


def test_a_command_in_an_assignment_is_found_one_level_deeper() -> None:
    found = diagnose(
        log(
            """
            + lib/keystone:create_keystone_accounts:310 :   local admin_project
            ++ lib/keystone:create_keystone_accounts:315 :   openstack project show admin -f value -c id
            ++ functions-common:oscwrap:2461            :   return 1
            Could not find versioned identity endpoints when attempting to authenticate. Bad Gateway (HTTP 502)
            + lib/keystone:create_keystone_accounts:315 :   admin_project=
            + lib/keystone:create_keystone_accounts:1   :   exit_trap
            """
        )
        + log(TRAP)
    )
    assert found.command == "openstack project show admin -f value -c id"
    assert found.known == "keystone-error"


def test_of_a_pipe_the_command_is_named_and_not_what_it_was_fed() -> None:
    found = diagnose(
        log(
            """
            + lib/host:configure_ksm:17                :   [[ -f /sys/kernel/mm/ksm/run ]]
            + lib/host:configure_ksm:19                :   sudo tee /sys/kernel/mm/ksm/run
            ++ lib/host:configure_ksm:19                :   bool_to_int ENABLE_KSM
            tee: /sys/kernel/mm/ksm/run: Read-only file system
            + lib/host:configure_ksm:19                :   echo 0
            0
            + lib/host:configure_ksm:1                 :   exit_trap
            """
        )
    )
    assert (found.command, found.line) == ("sudo tee /sys/kernel/mm/ksm/run", "lib/host:19")
    assert found.known == "read-only"


def test_a_trap_on_err_stands_a_level_deeper_than_what_failed() -> None:
    found = diagnose(
        log(
            """
            ++ ./stack.sh:main:57                       :   /opt/stack/devstack/tools/outfilter.py -o /opt/stack/logs/summary
            + ./stack.sh:main:114                      :   sudo apt-get --assume-yes install no-such-package
            E: Unable to locate package no-such-package
            ++ ./stack.sh:main:114                      :   err_trap
            ++ ./stack.sh:err_trap:114                  :   local r=100
            stack.sh failed: full log in /opt/stack/logs/stack.sh.log
            Error on exit
            """
        )
    )
    assert (found.command, found.line) == ("sudo apt-get --assume-yes install no-such-package", "./stack.sh:114")
    assert found.known == "no-package"


@pytest.mark.parametrize("stamped", [True, False])
def test_lines_of_other_releases_with_colours_and_without_stamps_are_read_too(stamped: bool) -> None:
    grey, end = "\x1b[38;5;242m", "\x1b(B\x1b[m"
    found = diagnose(
        log(
            f"""
            +{grey}inc/python:pip_install:290               {end} sudo -H pip2.7 install -c constraints.txt no-such
              Could not find a version that satisfies the requirement no-such (from versions: )
            No matching distribution found for no-such
            +{grey}inc/python:pip_install:1                 {end} exit_trap
            +{grey}./stack.sh:exit_trap:474                 {end} local r=1
            Error on exit
            """,
            stamped=stamped,
        )
    )
    assert found.command == "sudo -H pip2.7 install -c constraints.txt no-such"
    assert found.line == "inc/python:290"
    assert found.known == "pip-index"


def test_what_is_dumped_after_the_failure_is_no_cause() -> None:
    found = diagnose(
        log("+ ./stack.sh:main:900                     :   frobnicate\nsomething new went wrong\n")
        + log("+ ./stack.sh:main:1                       :   exit_trap\n" + TRAP)
        + log("tmpfs 100% No space left on device\nOut of memory: Killed process 1 (n-cpu)\n")
    )
    assert found.known == ""
    assert found.command == "frobnicate"
    assert "not one of the known" in found.cause


@pytest.mark.parametrize("end", ["Error on exit\n", "+ exit_trap\n+ local r=2\nError on exit\n", ""])
def test_in_a_plain_trace_the_last_command_failed_and_what_it_said_is_told(end: str) -> None:
    found = diagnose(
        f"+ set -e\n+ mkdir -p /opt\n+ ls /missing\nls: cannot access '/missing': No such file or directory\n{end}"
    )
    assert (found.command, found.known) == ("ls /missing", "")
    assert "not one of the known causes; the last that was said: ls: cannot access" in found.cause


def test_where_nothing_is_traced_the_last_words_stand_for_the_command() -> None:
    said = "ls: cannot access '/missing'"
    for before in ("", "+ mkdir -p /opt\n+ set +x\n", "+ mkdir -p /opt\n+ set +o xtrace\n"):
        found = diagnose(f"{before}{said}\nError on exit\n")
        assert (found.command, found.cause) == (said, "not one of the known causes")


def test_a_traced_command_that_quotes_a_failure_is_no_failure() -> None:
    found = diagnose(
        log(
            """
            + functions-common:yum_install:1350        :   grep 'No space left on device'
            + functions-common:yum_install:1           :   exit_trap
            """
        )
    )
    assert found.known == ""


@pytest.mark.parametrize("text", ["", "\n\n", "\x00\xff", "exit_trap", "+ exit_trap", "Error on exit"])
def test_any_text_gets_an_answer(text: str) -> None:
    assert isinstance(diagnose(text), Diagnosis)


@pytest.mark.parametrize(("failure", "line"), [(failure, line) for failure in catalogue() for line in failure.examples])
def test_what_programs_say_is_known(failure: Failure, line: str) -> None:
    before = log("+ lib/some:thing:1                        :   do_it\n")
    after = log("+ lib/some:thing:1                        :   exit_trap\n")
    assert diagnose(before + f"{STAMP}{line}\n" + after, failure.program or "stack").known == failure.id


def test_what_puppet_said_is_what_failed_and_the_notes_at_the_end_are_not_it() -> None:
    found = diagnose(
        log(
            """
            Installing:
            Preparing servers                                    [ \x1b[32mDONE\x1b[0m ]
            Applying 192.0.2.7_controller.pp
            192.0.2.7_controller.pp:                             [ \x1b[31mERROR\x1b[0m ]

            \x1b[31mERROR : Error appeared during Puppet run: 192.0.2.7_controller.pp
            Error: Could not start Service[mariadb]: Execution of '/bin/systemctl start mariadb' returned 1\x1b[0m
            You will find full trace in log /var/tmp/packstack/latest/manifests/192.0.2.7_controller.pp.log
            Please check log file /var/tmp/packstack/latest/openstack-setup.log for more information
            Additional information:
             * Warning: No space left on device is what another note might say
            """
        ),
        "packstack",
    )
    assert found.command.startswith("Error: Could not start Service[mariadb]")
    assert found.line == "192.0.2.7_controller.pp"
    assert found.known == "packstack-service"
    assert "packstack goes over everything once more" in found.advice


def test_stack_sh_is_not_explained_with_packstacks_words() -> None:
    assert diagnose(log("Error: Systemd start for mariadb failed!")).known == ""


def test_every_known_failure_is_tried_and_says_where_it_comes_from() -> None:
    for failure in catalogue():
        assert failure.examples, failure.id
        re.compile(failure.pattern)
        assert re.match("DevStack |PackStack |measured|published log|documented|unproven|Keystone", failure.source), (
            failure.id
        )
        assert not failure.remedy.endswith("."), failure.id  # the advice goes on behind it


def test_harmless_lines_of_a_good_run_are_no_failure() -> None:
    good = log(
        """
        WARNING: Running pip as the 'root' user can result in broken permissions
        Created symlink /etc/systemd/system/multi-user.target.wants/devstack@keystone.service
        warning: redirecting to https://opendev.org/openstack/nova/
        ovs-ofctl: br-int is not a bridge or a socket
        Waiting for nova-api to start...
        DeprecationWarning: the load_module() method is deprecated
        """
    )
    assert diagnose(good).known == ""
