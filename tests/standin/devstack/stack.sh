#!/usr/bin/env bash
# The stand-in for DevStack: goes through files/phases, and prints what lab has to understand of stack.sh. See README.md.

set -x
export LC_ALL=en_US.utf8
umask 022
PATH+=:/usr/sbin:/sbin
HERE=$(dirname "$(realpath "$0")")

source "$HERE/functions"
source "$HERE/lib/services"
refuse_root
read_settings
PS4=$TRACED
open_log "$LOGFILE"
trap 'exit_trap $?' EXIT
trap 'err_trap $?' ERR
set -e

[[ -n $HOST_IP ]] || die "Could not determine host ip address: local.conf has no HOST_IP"
for whose in DATABASE RABBIT SERVICE ADMIN; do
    need_password ${whose}_PASSWORD
done

let_selinux_only_report
mapfile -t phases < <(grep -v '^#' "$HERE/files/phases")
for phase in "${phases[@]}"; do
    IFS='|' read -r title share steps <<<"$phase"
    title=$(xargs <<<"$title")
    # lab takes a phase from this line's trace: the name of the function, and that it is called from the main part.
    echo_summary "$title"
    hang_if_told "$title"
    IFS=';' read -ra steps <<<"$steps"
    for step in "${steps[@]}"; do
        $step
    done
    pass_time $share
done
# In the main part, so that it is the trap on ERR that ends a run here; elsewhere it is the one on EXIT.
wait_for_compute "$NOVA_READY_TIMEOUT"
leave_as_centos_7_does

{ set +x; } 2>/dev/null
farewell | tee -a "$RUN_LOG" >&"$PLAIN"
echo_summary "stack.sh completed in $SECONDS seconds."
