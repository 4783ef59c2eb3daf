#!/bin/bash
# First process of the guest. Takes commands from the console, one a line after its number, and
# leaves each answer, exit status first, in the folder shared with the host ($FOLDER, set on the
# kernel's command line).
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run
export STRONGSWAN_CONF=/mnt/host/strongswan.conf SWANCTL_DIR=/run/swanctl

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs mnt /mnt
mkdir /mnt/host
mount -t hostfs -o "$FOLDER" host /mnt/host
mount -t tmpfs dev /dev
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/random c 1 8
mknod -m 666 /dev/urandom c 1 9
mknod -m 666 /dev/tty c 5 0
mknod -m 600 /dev/console c 5 1
exec </dev/console >/dev/console 2>&1

# The kernel loads ciphers itself, by the name of the transform.
mkdir -p /run/kernel/lib
ln -s /usr/lib/uml/modules /run/kernel/lib/modules
printf '#!/bin/sh\nexec /sbin/modprobe -d /run/kernel "$@"\n' >/run/modprobe
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
for module in xfrm_user esp4 gcm seqiv; do /run/modprobe "$module"; done

ip link set lo up
ip link show eth0 >/dev/null 2>&1 || ip link set vec0 name eth0
# The members' virtual ports want whole frames with finished checksums.
ethtool -K eth0 tx off tso off gso off gro off
ip address add "$OUTER/24" dev eth0
ip address add "$INNER/32" dev lo
ip link set eth0 up

# start_strongswan: returns once the connection is loaded.
start_strongswan() {
  mkdir -p /run/swanctl/{x509,x509ca,x509ocsp,x509aa,x509ac,x509crl,pubkey,private,rsa,ecdsa,bliss,pkcs8,pkcs12}
  cp /mnt/host/swanctl.conf /run/swanctl/
  charon-systemd >/run/charon.out 2>&1 &
  until [ -S /run/vici.sock ]; do
    kill -0 $! || { cat /run/charon.out; return 1; }
    sleep 0.05
  done
  control --load-all
}

# control VERB ARGUMENT...: swanctl on this guest's charon.
control() {
  local verb=$1
  shift
  swanctl "$verb" --uri unix:///run/vici.sock "$@"
}

# fetch PATH: begins to fetch it through the tunnel; `fetched` waits for the end.
fetch() {
  rm -f /run/fetched
  curl -sS --fail --max-time 60 --interface "$INNER" -o /run/fetched "http://$COMMON/$1" 2>/run/fetch.log &
  fetch=$!
}

# fetched_bytes: how much is there.
fetched_bytes() {
  stat -c %s /run/fetched 2>/dev/null || echo 0
}

# fetched: its digest, once it is complete.
fetched() {
  wait "$fetch" || { cat /run/fetch.log; return 1; }
  sha256sum </run/fetched
}

while read -r number command; do
  eval "$command" >/run/answer 2>&1 </dev/null
  { echo $?; cat /run/answer; } >/mnt/host/answer.part
  mv /mnt/host/answer.part "/mnt/host/answer-$number"
done
