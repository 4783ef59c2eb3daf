# Hugepages: tried, and given back. Sourced, never run.
# Members use them where there are some and do without where there are none.

HUGEPAGES_FILE=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
HUGEPAGES_BEFORE=
HUGEPAGES_MOUNTED=

# take_hugepages COUNT: adds up to COUNT pages of 2 MiB; getting fewer is no error.
take_hugepages() {
  [ -w "$HUGEPAGES_FILE" ] || return 0
  HUGEPAGES_BEFORE=$(cat "$HUGEPAGES_FILE")
  { echo $((HUGEPAGES_BEFORE + $1)) >"$HUGEPAGES_FILE"; } 2>/dev/null || true
  if ! grep -q ' hugetlbfs ' /proc/mounts && mkdir -p /dev/hugepages &&
    mount -t hugetlbfs none /dev/hugepages 2>/dev/null; then
    HUGEPAGES_MOUNTED=yes
  fi
  echo "hugepages of 2 MiB: $(cat "$HUGEPAGES_FILE") (before: $HUGEPAGES_BEFORE)"
}

# give_back_hugepages: restores the former number and unmounts what was mounted.
give_back_hugepages() {
  [ -n "$HUGEPAGES_MOUNTED" ] && umount /dev/hugepages 2>/dev/null
  HUGEPAGES_MOUNTED=
  if [ -n "$HUGEPAGES_BEFORE" ]; then
    { echo "$HUGEPAGES_BEFORE" >"$HUGEPAGES_FILE"; } 2>/dev/null || true
  fi
  HUGEPAGES_BEFORE=
}
