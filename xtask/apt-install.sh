#!/bin/sh
# Installs Debian packages without letting their services start: the tests start servers of their own.
# Run as root: sh xtask/apt-install.sh PACKAGE...
# While it runs, /usr/sbin/policy-rc.d forbids service starts; what stood there before is put back at the end,
# also after an interrupt, and by the next run after a kill.
set -eu

policy=/usr/sbin/policy-rc.d
before=$policy.before-tenantry
marker='# tenantry: services stay stopped while packages are installed'

restore() {
    rm -f "$policy"
    if [ -e "$before" ]; then mv "$before" "$policy"; fi
}

if [ -e "$policy" ] && ! grep -qxF "$marker" "$policy"; then mv "$policy" "$before"; fi
trap restore EXIT
trap 'exit 130' HUP INT TERM
printf '#!/bin/sh\n%s\nexit 101\n' "$marker" >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends "$@"
