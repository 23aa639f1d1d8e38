# Write a file: path, size in bytes, mode and owner (both empty: as those of the file that is there); the content is standard
# input. Another name first, then the right one: whoever reads, and whatever happens, sees the old file or the new one, never a half.
path=$1 size=$2 mode=$3 owner=$4
LC_ALL=C; export LC_ALL
if [ -d "$path" ]; then echo "$path is a directory" >&2; exit 1; fi
if [ -z "$mode" ]; then path=$(readlink -e -- "$path") || { echo "there is no file $1" >&2; exit 1; }; fi
directory=$(dirname -- "$path")
umask 022
mkdir -p -- "$directory"
umask 077
new=$(mktemp -- "$directory/.lab-XXXXXXXXXX")
trap 'rm -f -- "$new"' EXIT
trap 'exit 143' HUP INT PIPE TERM
[ -n "$mode" ] || cp --attributes-only --preserve=all -- "$path" "$new"
cat >"$new"
here=$(wc -c <"$new")
# A lost connection looks like the end of the input.
if [ "$here" -ne "$size" ]; then echo "only $here of $size bytes arrived" >&2; exit 1; fi
if [ -n "$mode" ]; then chown -- "$owner" "$new"; chmod -- "$mode" "$new"; fi
mv -f -- "$new" "$path"
# A file keeps the SELinux type of its temporary name's directory; policy may want another one for its own name.
if [ -n "$mode" ] && command -v restorecon >/dev/null; then restorecon -- "$path" || :; fi
