# Usage: sh -eu start.sh BASE PROGRAM UNITS PATTERN ACCOUNT ENVIRONMENT NOTE AT STAMPED COMMAND...
# Everything under one lock, so that of two labs that begin at the same moment one is refused.
base=$1 program=$2 units=$3 pattern=$4 account=$5 environment=$6 note=$7
shift 7
directory=$base/$program unit=lab-$program.service
mkdir -p "$base"
exec 9>"$base/lock"
flock -w 30 9
alive() {
    case $(systemctl show "$1" -p ActiveState) in
    ActiveState=active|ActiveState=activating|ActiveState=deactivating) return 0 ;;
    *) return 1 ;;
    esac
}
for other in $units; do
    # One that has told its end already goes in a moment.
    name=${other#lab-} tries=0
    while alive "$other" && [ -f "$base/${name%.service}/ended" ] && [ "$tries" -lt 50 ]; do sleep 0.2; tries=$((tries + 1)); done
    if alive "$other"; then echo "$other"; exit 71; fi
done
if pids=$(pgrep -f "$pattern"); then echo $pids; exit 72; fi
if [ "$program" = stack ] && [ -f "$base/unstack/began" ]; then
    # An unstack.sh that did not end well leaves half of the services; DevStack cannot build on that.
    grep -qx status=0 "$base/unstack/ended" 2>/dev/null || exit 73
fi
install -d -m 0700 -o "$account" "$directory"
cd "$directory"
[ -f log ] && mv -f log log.previous
rm -f ended ended.new environment
[ ! -f "$environment" ] || install -m 0600 -o "$account" "$environment" environment
install -m 0600 -o "$account" /dev/null log
printf '%sat=%s\nboot=%s\n' "$note" "$(date +%s.%N)" "$(cat /proc/sys/kernel/random/boot_id)" >began.new
mv began.new began
systemctl reset-failed "$unit" 2>/dev/null || true
if ! systemd-run --unit="$unit" --uid="$account" --description="$program, started by lab" \
    /bin/bash "$base/run" "$directory" "$directory/environment" "$@" 9>&-; then
    rm -f began
    exit 1
fi
