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

import re
from typing import ClassVar


class LabError(Exception):
    """An error with advice. Subclasses are the catalogue below; `str()` is the one line that is printed.

    `id`: what scripts know it by, its name in lower case with hyphens. Without an exit code of its own it is to them its base.
    """

    id: ClassVar[str] = "lab-error"
    exit_code: ClassVar[int] = 1

    def __init_subclass__(cls, *, exit_code: int | None = None) -> None:
        if exit_code is not None:
            cls.id = re.sub(r"\B(?=[A-Z])", "-", cls.__name__).lower()
            cls.exit_code = exit_code

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def begin_with(self, where: str) -> None:
        """Say first where it happened."""
        self.message = f"{where}: {self.message}"
        self.args = (self.message,)


# --- the command line (2), beside what click itself refuses -----------------------------------------------------------


class WrongUsage(LabError, exit_code=2):
    """What click refuses (an option that is none, say), told to a script; a person reads click's own lines."""


class NobodyToAsk(LabError, exit_code=2):
    """Something goes for good, so it is asked for, and there is nobody to answer."""


# --- the machine (10-19) -------------------------------------------------------------------------------------------


class MissingProgram(LabError, exit_code=10):
    """A program that the work needs is not installed."""


class NotEnoughSpace(LabError, exit_code=11):
    """The disk is (or would be) full."""


class NotAllowed(LabError, exit_code=14):
    """A file or directory that lab needs may not be read or written."""


class DownloadFailed(LabError, exit_code=12):
    """Something could not be fetched, or was not what it should be."""


class UnsupportedMachine(LabError, exit_code=13):
    """This machine cannot do what was asked, whatever is installed."""


# --- the home (20-29) ----------------------------------------------------------------------------------------------


class StageFailed(LabError, exit_code=20):
    """A stage of `lab up` ended badly."""


class VmFailed(LabError, exit_code=20):
    """Vagrant, libvirt or the VM itself did not do what was asked; the message has their words."""


class ServiceFailed(LabError, exit_code=21):
    """A service of the cloud is dead or does not answer."""


class HomeUnavailable(LabError, exit_code=22):
    """The asked-for home does not exist, or cannot be used here."""


class NotRunning(LabError, exit_code=23):
    """The lab's cloud is not up."""


class CheckpointMissing(LabError, exit_code=24):
    """There is nothing saved to go back to."""


class CheckpointBroken(CheckpointMissing, exit_code=24):
    """A checkpoint is there, but not as it was saved; nothing was touched."""


class BrokenOnPurpose(LabError, exit_code=21):
    """`lab break` broke it, and it has not been repaired; the message says what, unless it shall be a surprise."""


class MachineUnreachable(LabError, exit_code=25):
    """There is no way to the machine, or the connection was lost and could not be made again."""


class HostKeyChanged(LabError, exit_code=25):
    """The machine shows another host key than the one that was pinned: it may be another machine."""


class LoginRefused(LabError, exit_code=26):
    """The machine does not let us in: key or password is wrong."""


class SudoRefused(LabError, exit_code=26):
    """The account on the machine may not become root (or another user) without a password."""


class CommandFailed(LabError, exit_code=27):
    """A command on the machine ended with an error or did not end in time; `status` is None then."""

    def __init__(self, message: str, *, status: int | None = None, said: str = "", advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.status = status
        self.said = said


class StackFailed(LabError, exit_code=28):
    """stack.sh ended with an error; the message names the failing command and the likely cause."""


class MachineInUse(LabError, exit_code=29):
    """The machine looks used: a deployment would change what somebody has there."""


# --- the cloud (30-39) ---------------------------------------------------------------------------------------------


class CloudUnreachable(LabError, exit_code=30):
    """The cloud did not answer, or not in a way we understand."""


class CloudRefused(LabError, exit_code=31):
    """The cloud answered with an error."""

    def __init__(self, message: str, *, status: int | None = None, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.status = status


class StepFailed(LabError, exit_code=32):
    """A step could not be applied, or what it left is not what it declares."""


class StepDiffers(LabError, exit_code=33):
    """The thing exists, but not as declared: it may be the learner's own, so it is reported, never overwritten."""


class UndoIncomplete(LabError, exit_code=34):
    """Something that the lab made could not be removed."""


class InstanceUnreachable(LabError, exit_code=35):
    """There is no way into the instance from here."""


# --- session files and profiles (40-49) ----------------------------------------------------------------------------


class SessionInvalid(LabError, exit_code=40):
    """A session file is wrong; the message names file, line and key."""


class UnknownName(LabError, exit_code=41):
    """No session, exercise or step has this name."""


class ProfileInvalid(LabError, exit_code=42):
    """A profile, or the user's configuration, is wrong; the message names file, line and key."""


class NotServed(LabError, exit_code=43):
    """A profile cannot serve what was asked for (a fragment, a service, a home); the message says why."""


class NotTrusted(LabError, exit_code=44):
    """A session from outside would run something on a machine of the learner's, and nobody has agreed to it."""


# --- the lab (50-59) -----------------------------------------------------------------------------------------------


class NoLab(LabError, exit_code=50):
    """No lab of this name exists here."""


class LabBusy(LabError, exit_code=51):
    """Another `lab` is writing to this lab."""


class LabDamaged(LabError, exit_code=52):
    """A file of the lab's state cannot be read."""


class Interrupted(LabError, exit_code=130):
    """Ctrl-C. What was done stays done; the advice names the command that goes on."""
