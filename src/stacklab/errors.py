"""Every error a user can see: its id, its message, what to do next, and the exit code.

Anything else that escapes is a defect of ours, and the boundary in `cli.main` says so. Exit codes are banded by where
the trouble lies, so that a script can tell them apart without reading text:

==========  =================================================
0           usable / everything passed
1           a check failed, or could not be told
2           the command line was wrong
10-19       this machine lacks something
20-29       the home (where the cloud lives)
30-39       the cloud or a step in it
40-49       a name that nothing has, a session file, or a profile
50-59       the lab itself: none here, or another `lab` at work
130         interrupted; the same command goes on from there
==========  =================================================
"""

from __future__ import annotations

from typing import ClassVar


class LabError(Exception):
    """An error with advice. Subclasses are the catalogue below; `str()` is the one line that is printed."""

    id: ClassVar[str] = "lab-error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def begin_with(self, where: str) -> None:
        """Say first where it happened."""
        self.message = f"{where}: {self.message}"
        self.args = (self.message,)


# --- the command line (2), beside what click itself refuses -----------------------------------------------------------


class WrongUsage(LabError):
    """What click refuses (an option that is none, say), told to a script; a person reads click's own lines."""

    id = "wrong-usage"
    exit_code = 2


class NobodyToAsk(LabError):
    """Something goes for good, so it is asked for, and there is nobody to answer."""

    id = "nobody-to-ask"
    exit_code = 2


# --- the machine (10-19) -------------------------------------------------------------------------------------------


class MissingProgram(LabError):
    """A program that the work needs is not installed."""

    id = "missing-program"
    exit_code = 10


class NotEnoughSpace(LabError):
    """The disk is (or would be) full."""

    id = "not-enough-space"
    exit_code = 11


class NotAllowed(LabError):
    """A file or directory that lab needs may not be read or written."""

    id = "not-allowed"
    exit_code = 14


class DownloadFailed(LabError):
    """Something could not be fetched, or was not what it should be."""

    id = "download-failed"
    exit_code = 12


class UnsupportedMachine(LabError):
    """This machine cannot do what was asked, whatever is installed."""

    id = "unsupported-machine"
    exit_code = 13


# --- the home (20-29) ----------------------------------------------------------------------------------------------


class StageFailed(LabError):
    """A stage of `lab up` ended badly."""

    id = "stage-failed"
    exit_code = 20


class VmFailed(LabError):
    """Vagrant, libvirt or the VM itself did not do what was asked; the message has their words."""

    id = "vm-failed"
    exit_code = 20


class ServiceFailed(LabError):
    """A service of the cloud is dead or does not answer."""

    id = "service-failed"
    exit_code = 21


class HomeUnavailable(LabError):
    """The asked-for home does not exist, or cannot be used here."""

    id = "home-unavailable"
    exit_code = 22


class NotRunning(LabError):
    """The lab's cloud is not up."""

    id = "not-running"
    exit_code = 23


class CheckpointMissing(LabError):
    """There is nothing saved to go back to."""

    id = "checkpoint-missing"
    exit_code = 24


class CheckpointBroken(CheckpointMissing):
    """A checkpoint is there, but not as it was saved; nothing was touched."""

    id = "checkpoint-broken"
    exit_code = 24


class BrokenOnPurpose(LabError):
    """`lab break` broke it, and it has not been repaired; the message says what, unless it shall be a surprise."""

    id = "broken-on-purpose"
    exit_code = 21


class MachineUnreachable(LabError):
    """There is no way to the machine, or the connection was lost and could not be made again."""

    id = "machine-unreachable"
    exit_code = 25


class HostKeyChanged(LabError):
    """The machine shows another host key than the one that was pinned: it may be another machine."""

    id = "host-key-changed"
    exit_code = 25


class LoginRefused(LabError):
    """The machine does not let us in: key or password is wrong."""

    id = "login-refused"
    exit_code = 26


class SudoRefused(LabError):
    """The account on the machine may not become root (or another user) without a password."""

    id = "sudo-refused"
    exit_code = 26


class CommandFailed(LabError):
    """A command on the machine ended with an error or did not end in time; `status` is None then."""

    id = "command-failed"
    exit_code = 27

    def __init__(self, message: str, *, status: int | None = None, said: str = "", advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.status = status
        self.said = said


class StackFailed(LabError):
    """stack.sh ended with an error; the message names the failing command and the likely cause."""

    id = "stack-failed"
    exit_code = 28


class MachineInUse(LabError):
    """The machine looks used: a deployment would change what somebody has there."""

    id = "machine-in-use"
    exit_code = 29


# --- the cloud (30-39) ---------------------------------------------------------------------------------------------


class CloudUnreachable(LabError):
    """The cloud did not answer, or not in a way we understand."""

    id = "cloud-unreachable"
    exit_code = 30


class CloudRefused(LabError):
    """The cloud answered with an error."""

    id = "cloud-refused"
    exit_code = 31

    def __init__(self, message: str, *, status: int | None = None, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.status = status


class StepFailed(LabError):
    """A step could not be applied, or what it left is not what it declares."""

    id = "step-failed"
    exit_code = 32


class StepDiffers(LabError):
    """The thing exists, but not as declared: it may be the learner's own, so it is reported, never overwritten."""

    id = "step-differs"
    exit_code = 33


class UndoIncomplete(LabError):
    """Something that the lab made could not be removed."""

    id = "undo-incomplete"
    exit_code = 34


class InstanceUnreachable(LabError):
    """There is no way into the instance from here."""

    id = "instance-unreachable"
    exit_code = 35


# --- session files and profiles (40-49) ----------------------------------------------------------------------------


class SessionInvalid(LabError):
    """A session file is wrong; the message names file, line and key."""

    id = "session-invalid"
    exit_code = 40


class UnknownName(LabError):
    """No session, exercise or step has this name."""

    id = "unknown-name"
    exit_code = 41


class ProfileInvalid(LabError):
    """A profile, or the user's configuration, is wrong; the message names file, line and key."""

    id = "profile-invalid"
    exit_code = 42


class NotServed(LabError):
    """A profile cannot serve what was asked for (a fragment, a service, a home); the message says why."""

    id = "not-served"
    exit_code = 43


class NotTrusted(LabError):
    """A session from outside would run something on a machine of the learner's, and nobody has agreed to it."""

    id = "not-trusted"
    exit_code = 44


# --- the lab (50-59) -----------------------------------------------------------------------------------------------


class NoLab(LabError):
    """No lab of this name exists here."""

    id = "no-lab"
    exit_code = 50


class LabBusy(LabError):
    """Another `lab` is writing to this lab."""

    id = "lab-busy"
    exit_code = 51


class LabDamaged(LabError):
    """A file of the lab's state cannot be read."""

    id = "lab-damaged"
    exit_code = 52


class Interrupted(LabError):
    """Ctrl-C. What was done stays done; the advice names the command that goes on."""

    id = "interrupted"
    exit_code = 130
