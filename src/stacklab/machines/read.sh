# Print a file: path, first byte (from 1), how many bytes (nothing: all).
path=$1 start=$2 limit=$3
if [ ! -e "$path" ]; then echo absent >&2; exit 44; fi
if [ -d "$path" ]; then echo "$path is a directory" >&2; exit 1; fi
if [ -z "$limit" ]; then exec tail -c "+$start" -- "$path"; fi
tail -c "+$start" -- "$path" | head -c "$limit"
