# Usage: sh -eu ownership.sh DEVSTACK-DIRECTORY ACCOUNTS. Evidence that somebody uses this machine.
# One line of evidence each; nothing is changed. What a fresh cloud image or installation has running is not among the names.
directory=$1
[ -d "$directory" ] && echo "DevStack in $directory"
units=$(systemctl list-unit-files 'devstack@*' --no-legend --no-pager 2>/dev/null | wc -l)
[ "$units" -eq 0 ] || echo "$units devstack@ services"
for path in /etc/nova /etc/neutron /etc/keystone /etc/kolla /etc/openstack_deploy /root/keystonerc_admin; do
    [ ! -e "$path" ] || echo "OpenStack: $path"
done
systemctl list-units --type=service --state=running --no-legend --no-pager --plain 2>/dev/null | while read -r unit rest; do
    name=${unit%.service}
    case $name in
    docker|containerd|podman|crio|cri-o|kubelet|k3s*|rke2*|snap.microk8s*|snap.lxd*) echo "containers: $name is running" ;;
    mariadb*|mysql*|postgresql*|mongod*|redis*|oracle*|elasticsearch*) echo "a database: $name is running" ;;
    httpd*|apache2*|nginx*|haproxy*|tomcat*|caddy*) echo "a web server: $name is running" ;;
    rabbitmq-server*|kafka*|jenkins*|gitlab*|named|bind9|slapd|smbd|nfs-server|dovecot*) echo "a server: $name is running" ;;
    openstack-*|nova-*|neutron-*|keystone*|glance-*|cinder-*|swift-*) echo "OpenStack: $name is running" ;;
    esac
done
if command -v virsh >/dev/null 2>&1; then
    for domain in $(virsh --connect qemu:///system list --name 2>/dev/null); do echo "a virtual machine: $domain"; done
fi
# exited containers count, too: somebody made them
if command -v docker >/dev/null 2>&1; then
    count=$(docker ps -aq 2>/dev/null | wc -l)
    [ "$count" -eq 0 ] || echo "containers: $count of Docker"
fi
accounts=$(getent passwd | awk -F: '$3 >= 1000 && $3 < 60000 && $7 !~ /(nologin|false)$/ && $1 != "stack" {print $1}')
count=$(printf '%s' "$accounts" | grep -c . || true)
[ "$count" -lt "$2" ] || echo "$count accounts of people: $(echo $accounts)"
true
