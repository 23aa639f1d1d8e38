"""A failed stack.sh explained from its log. The excerpts are ours, in the form that DevStack's source gives its lines."""

from __future__ import annotations

import re
from textwrap import dedent

import pytest

from stacklab.deploy.stack.failures import Diagnosis, catalogue, diagnose

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


# One line each that a program really prints, by what the catalogue should make of it.
SAID = {
    "no-space": ["fatal: write error: No space left on device", "OSError: [Errno 28] No space left on device"],
    "out-of-memory": [
        "/opt/stack/devstack/inc/python: line 198: 12345 Killed                  sudo -H pip install -U os-testr",
        "c++: fatal error: Killed signal terminated program cc1plus",
    ],
    "read-only": ["touch: cannot touch '/opt/stack/x': Read-only file system"],
    "as-root": ["DevStack should be run as a user with sudo permissions, "],
    "no-devstack-host": ["You've marked this host as a no-devstack host, to save yourself from"],
    "distribution": [
        "[ERROR] ./stack.sh:237 If you wish to run this script anyway run with FORCE=yes",
        "[ERROR] /opt/stack/devstack/functions-common:264 Support for f39 is incomplete: no support for installing packages",
    ],
    "path-permissions": ["[ERROR] /opt/stack/devstack/functions:631 Invalid path permissions"],
    "host-ip": [
        "[ERROR] /opt/stack/devstack/stackrc:827 Could not determine host ip address.  See local.conf for suggestions on "
        "setting HOST_IP."
    ],
    "password-asked": [
        "This value will be written to /opt/stack/devstack/.localrc.password file so you don't have to enter it "
    ],
    "locale": ["locale.Error: unsupported locale setting"],
    "clock": [
        "E: Release file for http://packages.example.org/dists/bookworm/InRelease is not valid yet (invalid for another 3h)."
    ],
    "sudo": ["sudo: a password is required", "sudo: sorry, you must have a tty to run sudo"],
    "mirrorlist": [
        "Could not retrieve mirrorlist http://mirrorlist.centos.org/?release=7&arch=x86_64&repo=os&infra=vag error was",
        "Cannot find a valid baseurl for repo: base/7/x86_64",
    ],
    "epel": ["[ERROR] ./stack.sh:324 Error installing EPEL repo, cannot continue"],
    "no-package": [
        "No package pyxattr available.",
        "E: Unable to locate package no-such-package",
        "E: Package 'python-dev' has no installation candidate",
    ],
    "package-key": [
        'GPG key retrieval failed: [Errno 14] curl#37 - "Couldn\'t open file /etc/pki/rpm-gpg/RPM-GPG-KEY-EPEL-7"'
    ],
    "package-lock": ["E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)"],
    "package-broken": [
        "E: dpkg was interrupted, you must manually run 'sudo dpkg --configure -a' to correct the problem.",
        "[ERROR] /opt/stack/devstack/functions-common:1174 Failed to update apt repos, we're dead now",
    ],
    "branch-gone": [
        "fatal: Remote branch stable/pike not found in upstream origin",
        "fatal: couldn't find remote ref stable/pike",
        "[ERROR] /opt/stack/devstack/functions-common:558 stable/pike is neither branch nor tag",
    ],
    "git-host": [
        "fatal: unable to access 'https://opendev.org/openstack/nova/': Could not resolve host: opendev.org",
        "Temporary failure resolving 'packages.example.org'",
    ],
    "certificate": [
        "fatal: unable to access 'https://opendev.org/openstack/nova/': SSL certificate problem: unable to get local issuer "
        "certificate",
        "fatal: unable to access 'https://opendev.org/openstack/nova/': Peer's Certificate issuer is not recognized.",
    ],
    "tls-old": ["curl: (35) Peer reports incompatible or unsupported protocol version."],
    "git-unsafe": ["fatal: detected dubious ownership in repository at '/opt/stack/nova'"],
    "git-broken-off": [
        "error: RPC failed; curl 56 GnuTLS recv error (-110): The TLS connection was non-properly terminated.",
        "fatal: The remote end hung up unexpectedly",
        "[ERROR] /opt/stack/devstack/functions-common:707 Maximum of 3 git retries reached",
    ],
    "git-incomplete": [
        "Exception: Versioning for this project requires either an sdist tarball, or access to an upstream git repository."
    ],
    "git": [
        "[ERROR] /opt/stack/devstack/functions-common:614 git call failed: [git clone https://opendev.org/openstack/nova "
        "/opt/stack/nova --branch master]"
    ],
    "hash-mismatch": [
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package versions, "
        "please update the hashes.",
        "/opt/stack/devstack/files/etcd-v3.1.7-linux-amd64.tar.gz: FAILED",
    ],
    "pip-index": [
        "ERROR: Could not find a version that satisfies the requirement oslo.config===9.9.9 (from versions: none)",
        "  Could not fetch URL https://python.example.org/simple/pbr/: connection error",
    ],
    "libvirt-python": ["  Failed building wheel for libvirt-python"],
    "distutils": [
        "Cannot uninstall 'PyYAML'. It is a distutils installed project and thus we cannot accurately determine which files",
        "ERROR: Cannot uninstall requests 2.25.1, RECORD file not found. Hint: The package was installed by rpm.",
    ],
    "compiler": [
        "    error: command 'gcc' failed with exit status 1",
        "    src/lxml/etree.c:96:10: fatal error: Python.h: No such file or directory",
    ],
    "get-pip": ["[ERROR] /opt/stack/devstack/tools/install_pip.sh:95 Download of get-pip.py failed"],
    "uwsgi-module": [
        "httpd: Cannot load modules/mod_proxy_uwsgi.so into server: /etc/httpd/modules/mod_proxy_uwsgi.so: "
        "undefined symbol: ap_proxy_should_override"
    ],
    "apache": ["Job for apache2.service failed because the control process exited with error code."],
    "port-in-use": ["OSError: [Errno 98] Address already in use"],
    "rabbit": [
        "[ERROR] /opt/stack/devstack/lib/rpc_backend:80 Failed to set rabbitmq password",
        "Error: unable to connect to node rabbit@centos7: nodedown",
    ],
    "database-refused": ["ERROR 1045 (28000): Access denied for user 'root'@'localhost' (using password: YES)"],
    "network-allocation": [
        "Error while executing command: HttpException: 503, Unable to create the network. No tenant network is available for "
        "allocation.",
        "Unable to create the network. No project network is available for allocation.",
    ],
    "nova-ready": ["Didn't find service registered by hostname after 120 seconds"],
    "service-start": [
        "[ERROR] /opt/stack/devstack/lib/keystone:567 keystone did not start",
        "[ERROR] /opt/stack/devstack/lib/placement:132 placement-api did not start",
        "[ERROR] /opt/stack/devstack/lib/swift:830 swift proxy did not start",
    ],
    "unit-failed": [
        'Job for devstack@q-agt.service failed. See "systemctl status devstack@q-agt.service" for details.'
    ],
    "keystone-error": ["Internal Server Error (HTTP 500)", "Bad Gateway (HTTP 502)"],
    "unauthorised": ["The request you have made requires authentication. (HTTP 401) (Request-ID: req-1)"],
    "download-gone": [
        "2026-11-22 10:00:00 ERROR 404: Not Found.",
        "Not found: http://download.cirros-cloud.net/0.3.5/cirros-0.3.5-x86_64-disk.img",
    ],
    "download": ["Connecting to opendev.org (opendev.org)|192.0.2.9|:443... failed: Connection timed out."],
    "openvswitch": [
        "modprobe: FATAL: Module openvswitch not found in directory /lib/modules/6.1.0",
        "ovs-vsctl: unix:/var/run/openvswitch/db.sock: database connection failed (No such file or directory)",
    ],
    "volume-group": [
        '  Volume group "stack-volumes-lvmdriver-1" not found',
        "losetup: cannot find an unused loop device",
    ],
    "packstack-missing": ["/var/lib/stacklab/run-packstack: 10: exec: packstack: not found"],
    "packstack-answers": [
        "ERROR : Failed handling answer file: Parameter CONFIG_CONTROLLER_HOST failed validation",
        "Parameter CONFIG_CINDER_VOLUMES_SIZE failed validation: Given value does not match required regular expression",
    ],
    "packstack-package": [
        "Package openstack-packstack-puppet has not been found in enabled Yum repos.",
        "Error: Execution of '/usr/bin/yum -d 0 -e 0 -y install openstack-nova-api' returned 1: Error: Nothing to do",
    ],
    "packstack-ssh": [
        "ERROR : Failed to run remote script, stdout: stderr: root@192.0.2.7: Permission denied (publickey,password).",
        "root@192.0.2.7: Permission denied (publickey,gssapi-keyex,gssapi-with-mic).",
    ],
    "packstack-service": [
        "Error: Could not start Service[rabbitmq-server]: Execution of '/bin/systemctl start rabbitmq-server' returned 1",
        "Error: Systemd start for mariadb failed!",
    ],
    "packstack-keystone": [
        "Error: Could not prefetch keystone_role provider 'openstack': Could not authenticate",
        "Unable to establish connection to http://192.0.2.7:35357/v3/auth/tokens",
    ],
    "packstack-puppet": ["ERROR : Error appeared during Puppet run: 192.0.2.7_controller.pp"],
}


@pytest.mark.parametrize(("known", "line"), [(known, line) for known, lines in SAID.items() for line in lines])
def test_what_programs_say_is_known(known: str, line: str) -> None:
    before = log("+ lib/some:thing:1                        :   do_it\n")
    after = log("+ lib/some:thing:1                        :   exit_trap\n")
    program = next(one.program for one in catalogue() if one.id == known) or "stack"
    assert diagnose(before + f"{STAMP}{line}\n" + after, program).known == known


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
    assert {one.id for one in catalogue()} == set(SAID)
    for one in catalogue():
        re.compile(one.pattern)
        assert re.match("DevStack |PackStack |measured|published log|documented|unproven|Keystone", one.source), one.id
        assert not one.remedy.endswith("."), one.id  # the advice goes on behind it


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
