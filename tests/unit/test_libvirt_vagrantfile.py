"""The Vagrantfile: what is in it, what is refused, and that no value can break out of its literal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.model import Profile
from stacklab.errors import NotServed
from stacklab.homes.libvirt.site import VmSite
from stacklab.homes.libvirt.vagrantfile import render, ruby, sized
from stacklab.homes.plan import Plan

SITE = VmSite("lab-intro-ab12", "qemu:///system", "default", "qemu", "10.77.6.0/23", box="centos/7", version="2004.01")
HOSTILE = [
    "it's",
    "back\\slash",
    "ends with \\",
    "\\'",
    "#{system('touch /tmp/x')}",
    '"; exit',
    "two\nlines",
    "'); `id` #",
    "ünïcödé €",
    "%q(x)",
    "",
]
needs_ruby = pytest.mark.skipif(not shutil.which("ruby"), reason="no ruby here: apt-get install -y ruby")


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("centos7-pike")


def setting(text: str, key: str) -> str:
    found = re.search(rf"^\s*{re.escape(key)} = (.*)$", text, re.MULTILINE)
    assert found, f"no {key} in\n{text}"
    return found.group(1)


def test_the_courses_vm_has_what_the_profile_says(profile: Profile) -> None:
    text = render(SITE, profile, profile.size, console=Path("/x/console.log"))
    wanted = {
        "config.vm.box": "'centos/7'",
        "config.vm.box_version": "'2004.01'",
        "config.vm.graceful_halt_timeout": "180",
        "config.vm.boot_timeout": "1200",
        "config.ssh.insert_key": "true",
        "libvirt.uri": "'qemu:///system'",
        "libvirt.driver": "'qemu'",
        "libvirt.cpus": "2",
        "libvirt.memory": "6144",
        "libvirt.machine_virtual_size": "60",
        "libvirt.default_prefix": "'lab-intro-ab12-'",
        "libvirt.management_network_name": "'lab-intro-ab12-nat'",
        "libvirt.management_network_address": "'10.77.7.0/24'",
        "libvirt.graphics_type": '"none"',
    }
    assert {key: setting(text, key) for key in wanted} == wanted
    assert "ip: '10.77.6.10', netmask: '255.255.255.0'" in text
    assert 'synced_folder ".", "/vagrant", disabled: true' in text
    assert "nested" not in text


def test_with_kvm_instances_get_virtualization_and_the_boot_less_time(profile: Profile) -> None:
    site = VmSite("lab-intro-ab12", "qemu:///system", "default", "kvm", "10.77.6.0/23", box="centos/7")
    text = render(site, profile, profile.size, console=Path("/x/console.log"))
    assert setting(text, "libvirt.nested") == "true"
    assert setting(text, "config.vm.boot_timeout") == "300"
    assert "box_version" not in text  # not known yet: the newest that Vagrant has


def test_the_users_wishes_win_over_the_profile(profile: Profile) -> None:
    size = sized(profile, Plan(cpus=4, memory=8192, disk=100))
    assert (size.cpus, size.memory, size.disk) == (4, 8192, 100)
    assert sized(profile, Plan(memory=4096)).memory == 4096


@pytest.mark.parametrize(
    ("plan", "why", "advice"),
    [
        (Plan(memory=4095), "4095 MiB of memory are too little: below 4096 MiB", "--memory 4096 or more"),
        (Plan(cpus=0), "at least one CPU", "the profile has 2 and 60"),
        (Plan(disk=0), "at least one CPU and 1 GiB of disk", "the profile has 2 and 60"),
    ],
)
def test_a_vm_that_cannot_work_is_refused_with_the_reason(profile: Profile, plan: Plan, why: str, advice: str) -> None:
    with pytest.raises(NotServed, match=why) as caught:
        sized(profile, plan)
    assert caught.value.advice == advice


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_no_text_ends_its_literal(text: str) -> None:
    literal = ruby(text)
    inner = literal[1:-1]
    assert literal[0] == literal[-1] == "'"
    assert re.fullmatch(r"(?:[^'\\]|\\\\|\\')*", inner, re.DOTALL)
    assert re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL) == text


@needs_ruby
def test_ruby_itself_reads_every_hostile_value_as_it_was_meant() -> None:
    program = "require 'json'; puts JSON.generate([{}])".replace("{}", ",".join(map(ruby, HOSTILE)))
    said = subprocess.run(["ruby"], input=program, capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == HOSTILE


@needs_ruby
def test_a_vagrantfile_full_of_hostile_values_is_still_one_program(profile: Profile, tmp_path: Path) -> None:
    site = VmSite(
        "lab-intro-ab12", "qemu:///system?a='b'", "po'ol #{1}", "qemu", "10.77.6.0/23", box="it's\\", version="1'"
    )
    path = tmp_path / "a 'b' & <c> \\d"
    file = tmp_path / "Vagrantfile"
    file.write_text(render(site, profile, profile.size, console=path))
    # What Vagrant would do with it, without Vagrant: every setting is noted.
    recorder = """
    require 'json'
    class Note
      def initialize(path, all) @path, @all = path, all end
      def method_missing(name, *given, **named, &block)
        return (@all << [@path + name.to_s.chomp('='), given[0]]; given[0]) if name.to_s.end_with?('=')
        @all << [@path + name.to_s, given, named] unless given.empty? && named.empty?
        block ? block.call(Note.new(@path + name.to_s + '.', @all)) : Note.new(@path + name.to_s + '.', @all)
      end
      def respond_to_missing?(*) true end
    end
    module Vagrant
      def self.configure(version) all = []; yield Note.new('', all); puts JSON.generate(all) end
    end
    load ARGV[0]
    """
    said = subprocess.run(
        ["ruby", "-e", recorder, "--", str(file)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    noted = {entry[0]: entry[1:] for entry in json.loads(said.stdout)}
    assert noted["vm.box"] == [site.box]
    assert noted["vm.provider.storage_pool_name"] == [site.pool]
    assert noted["vm.provider.uri"] == [site.uri]
    # vagrant-libvirt puts this one into XML as it stands, in single quotes.
    source = noted["vm.provider.serial"][1]["source"]["path"]
    assert ET.fromstring(f"<source path='{source}'/>").get("path") == str(path)  # noqa: S314 - ours
