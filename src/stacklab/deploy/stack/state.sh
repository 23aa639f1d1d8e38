# Usage: sh -eu state.sh DIRECTORY UNIT. What became of a program's last run, a NAME=value a line.
directory=$1 unit=$2
[ -d "$directory" ] && cd "$directory" || { echo absent=1; exit 0; }
# A start that is under way has noted the run already, but its unit may not be there yet.
exec 9<../lock
flock -s -w 30 9
for file in began ended; do [ -f "$file" ] && sed "s/^/$file./" "$file" || true; done
systemctl show "$unit" -p ActiveState -p ExecMainStatus -p Result
echo "now=$(date +%s.%N)"
echo "boot=$(cat /proc/sys/kernel/random/boot_id)"
