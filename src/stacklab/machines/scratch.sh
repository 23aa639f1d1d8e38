# Ends what steps left running below a lab's scratch directory, and (all) removes its control groups and whatever lies in it.
#   $1 "all", or "processes" for those of the named pid files only    $2 the directory    $3 how the names of its cgroups begin
#   $4… pid files
# A pid file says who, and the process itself whether it is still the same one: it works below the directory, or its
# environment says LAB_SCRATCH=the directory. A number that was given to somebody else meanwhile is left alone.
what=$1 scratch=$2 groups=$3
shift 3
case $scratch in
/*/?*) ;;
*) echo "$scratch cannot be a scratch directory" >&2; exit 1 ;;
esac
if [ -L "$scratch" ]; then echo "$scratch is a symbolic link, which the lab did not make" >&2; exit 1; fi
cd /
real=$(readlink -f -- "$scratch") || real=$scratch

belongs() {
    case "$(readlink "/proc/$1/cwd")/" in "$real"/*) return 0 ;; esac
    grep -qzxF -- "LAB_SCRATCH=$scratch" "/proc/$1/environ"
}

alive() {
    case $(sed -n 's/^State:[[:space:]]*//p' "/proc/$1/status") in '' | Z* | X*) return 1 ;; esac
}

# The given processes and all below them, but never this script or what started it.
family() {
    grep -H '^PPid:' /proc/[0-9]*/status | awk -F '[/:[:space:]]+' -v roots="$*" -v me="$$" '
        { parent[$3] = $6 }
        END {
            for (p = me; p in parent; p = parent[p]) never[p] = 1
            n = split(roots, root, " ")
            for (i = 1; i <= n; i++) if (!(root[i] in never)) found[root[i]] = 1
            do {
                more = 0
                for (p in parent) if (!(p in found) && !(p in never) && (parent[p] in found)) { found[p] = 1; more = 1 }
            } while (more)
            for (p in found) print p
        }'
}

roots=
while read -r file; do
    pid=
    [ -n "$file" ] || continue
    read -r pid _ <"$file" || [ -n "$pid" ] || continue
    case $pid in '' | *[!0-9]* | 0 | 1) continue ;; esac
    if belongs "$pid" 2>/dev/null; then roots="$roots $pid"; fi
done <<LIST
$(if [ "$what" = all ]; then find "$scratch" -xdev -name '*.pid' -type f 2>/dev/null; else for one; do [ ! -f "$one" ] || echo "$one"; done; fi)
LIST

left=
[ -z "$roots" ] || left=$(family $roots 2>/dev/null)
for signal in TERM KILL; do
    [ -n "$left" ] || break
    kill -s "$signal" $left 2>/dev/null || :
    tries=0
    while [ -n "$left" ] && [ "$tries" -lt 20 ]; do
        still=
        for pid in $left; do if alive "$pid" 2>/dev/null; then still="$still $pid"; fi; done
        left=$still tries=$((tries + 1))
        [ -z "$left" ] || sleep 0.1
    done
done
if [ -n "$left" ]; then echo "processes$left cannot be ended" >&2; exit 1; fi
[ "$what" = all ] || { rm -f -- "$@"; exit 0; }

failed=
while read -r _ at type _; do
    case $type in cgroup | cgroup2) ;; *) continue ;; esac
    for group in "$at/$groups"* "$at"/user.slice/user-*.slice/user@*.service/"$groups"*; do
        [ -d "$group" ] || continue
        tries=0
        while [ -d "$group" ] && [ "$tries" -lt 50 ]; do
            for pid in $(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null); do
                [ "$pid" -le 1 ] || kill -s KILL "$pid" 2>/dev/null || :
            done
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
            tries=$((tries + 1))
        done
        [ ! -d "$group" ] || failed="$failed $group"
    done
done </proc/mounts
if [ -n "$failed" ]; then echo "control groups$failed cannot be removed" >&2; exit 1; fi

[ -d "$scratch" ] || exit 0
# Whoever mounted something here by hand would lose what lies there, were it emptied.
sed -n 's/^[^ ]* \([^ ]*\) .*/\1/p' /proc/mounts | sort -r | while read -r at; do
    at=$(printf '%b' "$at")
    case $at in "$real"/*) umount -- "$at" ;; esac
done
# An overlay's work directory may be closed to its own owner.
find "$scratch" -xdev -type d ! -perm -u=rwx -exec chmod u+rwx {} + 2>/dev/null || :
rm -rf --one-file-system -- "$scratch"
