#!/usr/bin/env bash
# The stand-in for DevStack takes its services away again. See README.md.

HERE=$(dirname "$(realpath "$0")")
source "$HERE/functions"
refuse_root
read_settings
set -x

for file in $(find /etc/systemd/system -maxdepth 1 -name 'devstack@*'); do
    sudo systemctl disable --now "${file##*/}"
    sudo rm "$file"
done
sleep "$STANDIN_UNSTACK_SECONDS"
if [[ -n $STANDIN_UNSTACK_FAIL ]]; then
    echo "the stand-in was told to fail"
    exit 1
fi
sudo systemctl daemon-reload
