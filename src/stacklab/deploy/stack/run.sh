#!/bin/bash
# Written by lab. Runs a program that deploys: its output goes to a log, its exit status to a file.
directory=$1 environment=$2 at=$3 stamped=$4
shift 4
umask 022
HOME=$(getent passwd "$(id -un)" | cut -d: -f6)
USER=$(id -un) LOGNAME=$USER SHELL=/bin/bash TERM=dumb
export HOME USER LOGNAME SHELL TERM
if [ -r "$environment" ]; then set -a; . "$environment"; set +a; fi
# The time before each line, in the form of DevStack's own log filter.
stamp() {
    local line
    export TZ=UTC0
    while IFS= read -r line || [ -n "$line" ]; do printf '%(%Y-%m-%d %H:%M:%S)T.000 | %s\n' -1 "$line"; done
}
cd "$at" || exit 1
if [ "$stamped" = yes ]; then
    "$@" </dev/null >>"$directory/log" 2>&1
    status=$?
    # DevStack's log filter is a process of its own and may still be writing.
    tries=0
    while [ "$tries" -lt 30 ]; do
        size=$(stat -c %s "$directory/log")
        sleep 1
        [ "$(stat -c %s "$directory/log")" != "$size" ] || break
        tries=$((tries + 1))
    done
else
    "$@" </dev/null 2>&1 | stamp >>"$directory/log"
    status=${PIPESTATUS[0]}
fi
printf 'status=%s\nat=%s\n' "$status" "$(date +%s.%N)" >"$directory/ended.new" && mv "$directory/ended.new" "$directory/ended"
exit "$status"
