#!/bin/busybox sh
# The first process of the virtual machine that `cargo xtask kernels` boots: a network of namespaces, the daemon between
# them, and what must be seen there. Lines that begin with "@ " are for the verb, which knows what each of them means
# (guest.rs); whatever stands between "@ failed" and "@ end" is shown to the reader.
#
#   client 10.1.0.2 eth0 -- front 10.1.0.1 balancer 10.2.0.1 back -- eth0 10.2.0.11 backend     (fd00:1::/64, fd00:2::/64)
#
# Nothing here routes: what passes between client and backend has passed through the XDP program.
set -eu
export PATH=/bin

doing="starting"
# The whole of a log would take minutes on a serial line.
log_bytes=60000
# How long the daemon may take to start, in seconds.
patience=600

evidence() {
    echo "-- the kernel's last messages"
    dmesg | tail -n 10
    echo "-- interfaces"
    /sbin/ip -s link show
    echo "-- drover status"
    NO_COLOR=1 timeout 10 /sbin/drover status || true
    echo "-- packets, by verdict"
    /sbin/curl --silent --max-time 10 --unix-socket /run/drover/control.sock http://drover/metrics |
        sed -n 's/^drover_verdict_packets_total//p' | grep -v ' 0$' || true
    echo "-- what was explained"
    cat /log/explained || true
    echo "-- the client"
    tail -n 10 /log/client
    for log in /log/first /log/second; do
        [ -e "$log" ] || continue
        echo "-- the daemon, $log"
        tail -c "$log_bytes" "$log"
    done
}

finish() {
    if [ "$?" -ne 0 ]; then
        echo "@ failed while $doing"
        evidence || true
    fi
    echo "@ end"
    # The verb takes the machine away now; this is in case that it is gone itself.
    sleep 10
    reboot -f
}

# Hundredths of a second since the kernel started.
now() {
    read -r up _ </proc/uptime
    echo "${up%.*}${up#*.}"
}

# within SECONDS COMMAND...: runs it until it succeeds.
within() {
    end=$(($(now) + $1 * 100))
    shift
    until "$@"; do
        [ "$(now)" -lt "$end" ] || return 1
        usleep 50000
    done
}

on() {
    host=$1
    shift
    nsenter --net="/run/netns/$host" "$@"
}

# fetch ADDRESS: one HTTP request of the client's, by a connection of its own.
fetch() {
    # This wget has a time-out of its own, which crashes it (busybox 1.35).
    [ "$(on client timeout 5 wget -q -O - "http://$1/who" 2>>/log/client)" = "the backend" ]
}

system() {
    /bin/busybox --install -s /bin
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t devtmpfs dev /dev
    mount -t tmpfs run /run
    mount -t bpf bpf /sys/fs/bpf
    (sleep 1800; reboot -f) &
    mkdir /run/netns /log
    touch /log/client
    module=$(echo "/modules/$(uname -r)"/veth.ko*)
    case $module in
    *.xz) xzcat "$module" >/veth.ko ;;
    *) cp "$module" /veth.ko ;;
    esac
    insmod /veth.ko
}

network() {
    /sbin/ip -batch - <<'END'
link set lo up
netns add client
netns add backend
link add front type veth peer name eth0 netns client
link add back type veth peer name eth0 netns backend
link set front up
link set back up
addr add 10.1.0.1/24 dev front
addr add 10.2.0.1/24 dev back
addr add fd00:1::1/64 dev front nodad
addr add fd00:2::1/64 dev back nodad
END
    /sbin/ip -n client -batch - <<'END'
link set lo up
link set eth0 up
addr add 10.1.0.2/24 dev eth0
addr add fd00:1::2/64 dev eth0 nodad
END
    /sbin/ip -n backend -batch - <<'END'
link set lo up
link set eth0 up
addr add 10.2.0.11/24 dev eth0
addr add fd00:2::11/64 dev eth0 nodad
route add default via 10.2.0.1
route add default via fd00:2::1
END
    for host in client backend; do
        # Whole checksums, as of a network card, since the program adjusts them; and GRO, without which a virtual link
        # drops what XDP sends to it. GRO takes effect only when both ends are up.
        on $host /sbin/ethtool -K eth0 tx off gro on >/dev/null
    done
    mkdir /www
    echo "the backend" >/www/who
    on backend httpd -p 80 -h /www
    on backend nc -ll -p 7 -e /bin/cat &
    # A new virtual link may carry nothing for a second.
    for address in 10.1.0.2 10.2.0.11 fd00:1::2 fd00:2::11; do
        within 30 ping -c 1 -W 1 $address >/dev/null
    done
}

# daemon LOG WORDS: starts it, and waits until it says that it has started, which must be with these words.
daemon() {
    /sbin/drover run --config /drover.toml >"/log/$1" 2>&1 &
    daemon=$!
    # A verifier that has a million instructions to go through, and then once more for each larger log, needs minutes.
    within "$patience" started_or_gone "$1" || echo "(it still runs, and has not started in $patience s)" >>"/log/$1"
    grep -q "started: $2" "/log/$1"
}

started_or_gone() {
    grep -q "started: " "/log/$1" || ! kill -0 "$daemon" 2>/dev/null
}

native() {
    # `ip` says "xdpgeneric" of the other kind, and nothing where none is attached.
    for link in front back; do
        /sbin/ip link show dev $link | grep -q " xdp "
    done
}

# Connections that are opened before the daemon is killed and used after it has come back, on descriptors 8 and 9.
open_connections() {
    mkfifo /run/four /run/six
    on client nc 10.1.0.100 7 </run/four >/run/four-echo 2>>/log/client &
    exec 8>/run/four
    on client nc fd00:1::100 7 </run/six >/run/six-echo 2>>/log/client &
    exec 9>/run/six
}

use_connections() {
    echo "$1" >&8
    echo "$1" >&9
    within 20 grep -q "$1" /run/four-echo
    within 20 grep -q "$1" /run/six-echo
}

# explained CLIENT VIP: the program says that the client's SYN would open a connection. The first time, it is loaded.
explained() {
    timeout 60 /sbin/drover explain --src "$1:20000" --dst "$2:80" >/log/explained 2>&1
    grep -q "opened: it opened a connection" /log/explained
}

fetch_both() {
    for round in 1 2 3; do
        fetch 10.1.0.100
        fetch "[fd00:1::100]"
    done
}

trap finish EXIT
doing="making its file systems"
system
echo "@ booted $(now) $(uname -v | grep -o "Debian [^ ]*")"

doing="making a network of namespaces"
network
echo "@ ok a network of namespaces"

doing="starting the daemon and loading its program"
before=$(now)
daemon first "loaded the data plane"
echo "@ loaded $(($(now) - before))"
# Since Linux 5.16.
echo "@ verified $(sed -n 's/^verified_insns:[[:space:]]*//p' /proc/$daemon/fdinfo/* | sort -n | tail -n 1)"

doing="looking for a native attachment"
native
echo "@ ok attached natively to both interfaces"

doing="connecting over IPv4 for the first time"
within 30 fetch 10.1.0.100
doing="connecting over IPv6 for the first time"
within 30 fetch "[fd00:1::100]"
doing="connecting over both, a few times"
fetch_both
echo "@ ok connections over IPv4 and IPv6"
doing="asking what would become of a packet"
within 120 explained 10.1.0.2 10.1.0.100
within 120 explained "[fd00:1::2]" "[fd00:1::100]"
echo "@ ok packets explained"
doing="using two long connections"
open_connections
use_connections "before"

doing="killing the daemon"
kill -9 "$daemon"
wait "$daemon" || true
doing="connecting while there is no daemon"
fetch_both
use_connections "without"
echo "@ ok killed, and packets flow on"

doing="starting a daemon that adopts"
daemon second "adopted the running data plane"
doing="connecting after the adoption"
native
fetch_both
doing="using the two connections from before the adoption"
use_connections "after"
echo "@ ok adopted, with the connections that were open"

doing="looking for complaints of the kernel"
if dmesg | grep -E 'WARNING:|BUG:|Oops'; then false; fi
doing="ending"
