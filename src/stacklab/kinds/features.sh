# Which features of the kernel may be used here: each is tried, none is looked up.
#   $1 scratch directory    $2 how the names of its control groups begin    $3 "root" or "user"    $4… features
# Prints "set NAME VALUE" for the variables that go with a feature, and "no FEATURE REASON".
scratch=$1 groups=$2 whose=$3
shift 3
if [ "$whose" = root ]; then own='' enter=''; else own=' --user --map-root-user' enter=' --user --preserve-credentials'; fi
UNSHARE="unshare$own"

last() { grep -v 'dmesg(1)' | tail -n 1 | tr -d '\r' | cut -c 1-200; }

namespaces() {
    if ! why=$($UNSHARE --fork --pid --mount-proc --uts --net --mount sh -c \
        'mount --make-rprivate / && mount -t tmpfs tmpfs /proc/sys' 2>&1 </dev/null); then
        echo "no namespaces the kernel lets $whose make none here ($(printf '%s\n' "$why" | last))"
        return
    fi
    echo "set UNSHARE $UNSHARE"
    echo "set NSENTER nsenter$enter"
}

overlay() {
    trial=$(mktemp -d "$scratch/.trial-XXXXXX") || exit 1
    for extra in ${own:+,userxattr} ''; do
        options="lowerdir=lower,upperdir=upper,workdir=work$extra"
        rm -rf "$trial"/*
        if why=$(cd "$trial" && mkdir lower upper work merged && echo one >lower/one && echo two >lower/two &&
            $UNSHARE --mount sh -euc 'mount --make-rprivate /; mount -t overlay overlay -o "$1" merged
                echo more >>merged/one; rm merged/two' sh "$options" 2>&1 </dev/null && [ -f upper/one ] && [ -c upper/two ]); then
            echo "set UNSHARE $UNSHARE"
            echo "set OVERLAY $options"
            why=
            break
        fi
        why=${why:-no whiteout appeared}
    done
    chmod -R u+rwx "$trial"
    rm -rf "$trial"
    [ -z "$why" ] || echo "no overlay $whose can mount no overlay here ($(printf '%s\n' "$why" | last))"
}

# Directories that may hold control groups with a controller: "version directory", the whole machine's first.
parents() {
    while read -r _ at type options _; do
        case $type in
        cgroup) case ",$options," in *",$1,"*) echo "1 $at" ;; esac ;;
        cgroup2) echo "2 $at"; echo "2 $at/user.slice/user-$(id -u).slice/user@$(id -u).service" ;;
        esac
    done </proc/mounts
}

# Whether a group $4 below directory $3 would really be limited by controller $1 (of version $2); sets ENTER.
usable() {
    group=$3/$groups-$4 made=
    if [ "$2" = 2 ] && ! grep -qw "$1" "$3/cgroup.controllers" 2>/dev/null; then
        why="$3 has no controller '$1'"
        return 1
    fi
    if [ ! -d "$group" ]; then why=$(mkdir "$group" 2>&1) || return 1; made=1; fi
    case $2:$1 in 1:memory) file=memory.limit_in_bytes ;; 1:cpu) file=cpu.cfs_quota_us ;; *) file=$1.max ;; esac
    good=1
    if [ ! -e "$group/$file" ]; then
        # The root of all groups, or one without processes of its own, can hand the controller down; the step does it.
        if [ "$2" = 1 ] || [ ! -w "$3/cgroup.subtree_control" ] ||
            { [ -e "$3/cgroup.type" ] && [ -n "$(cat "$3/cgroup.procs")" ]; }; then
            good= why="$group has no $file"
        fi
    fi
    for ENTER in '' 'systemd-run --user --scope --quiet --'; do
        [ -n "$good" ] || break
        why=$($ENTER sh -c 'echo 0 >"$1/cgroup.procs"' sh "$group" 2>&1 </dev/null) && break
        [ -z "$ENTER" ] || good=
    done
    tries=0
    while [ -n "$made" ] && ! rmdir "$group" 2>/dev/null && [ "$tries" -lt 20 ]; do sleep 0.1; tries=$((tries + 1)); done
    [ -n "$good" ]
}

# $1: the word for it, $2: the controller.
cgroup() {
    first= why="no control groups are mounted with the controller '$2'"
    while read -r version parent; do
        [ -d "$parent" ] || continue
        if usable "$2" "$version" "$parent" "$1" && { [ "$1" != join ] || [ -z "$ENTER" ]; }; then
            echo "set CGROUP_VERSION $version"
            echo "set CGROUP_$(echo "$1" | tr a-z A-Z) $parent/$groups-$1"
            echo "set ENTER $ENTER"
            return
        fi
        first=${first:-$why}
    done <<LIST
$(parents "$2")
LIST
    echo "no cgroup-$1 no control group can be made here ($(printf '%s\n' "${first:-$why}" | last))"
}

for feature; do
    case $feature in
    namespaces) namespaces ;;
    overlay) overlay ;;
    # whether a process that runs already can be moved into one
    cgroup-join) cgroup join pids ;;
    cgroup-*) cgroup "${feature#cgroup-}" "${feature#cgroup-}" ;;
    esac
done
