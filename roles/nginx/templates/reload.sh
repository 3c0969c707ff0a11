#!/bin/sh
# Written by Farrier's role nginx: what `systemctl reload nginx` runs, in nginx.service.d/farrier.conf.
# nginx itself returns as soon as its master was signalled: a key that was taken away would be taken
# for a moment longer, and a configuration that the master cannot apply would look like a good one.
# This returns when only new workers take connections. Streams that run are not cut: nginx renames
# a worker that ends its last ones.
set -eu
# Not $MAINPID: after an upgrade of the package systemd knows the old master until its last stream is
# over. It reads this file again after a reload.
master=$(cat /run/nginx.pid)
workers() { # those that take connections
    for pid in $(cat "/proc/$master/task/$master/children"); do
        case "$(tr -d '\000' <"/proc/$pid/cmdline")" in *"worker process") echo "$pid" ;; esac
    done 2>/dev/null
}
only_new() {
    now=$(workers) && [ -n "$now" ] || return 1
    for pid in $now; do
        case " $before " in *" $pid "*) return 1 ;; esac
    done
}
before=$(workers | tr '\n' ' ')
/usr/sbin/nginx -g 'daemon on; master_process on;' -s reload
deadline=$(($(date +%s) + 15))
until only_new; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
        echo "nginx did not take its new configuration within 15 s and serves with the old one; why:" >&2
        tail -n 5 /var/log/nginx/error.log >&2
        exit 1
    fi
    sleep 0.05
done
