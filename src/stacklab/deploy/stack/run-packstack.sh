#!/bin/sh
# Written by lab. Usage: packstack ANSWER-FILE TIMEOUT
# PackStack writes the file that it is given anew, with all that it has made up (run_setup.py, generateAnswerFile), so it gets
# a copy, root's alone as well. ssh-keygen, which it runs for the key that it logs in with, makes no directory for it.
set -eu
umask 077
mkdir -p "$HOME/.ssh"
cp -f "$1" "$1.used"
umask 022
PYTHONUNBUFFERED=1 exec packstack --answer-file="$1.used" --timeout="$2"
