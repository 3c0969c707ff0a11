#!/bin/sh
# Written by Farrier's role nvidia_driver. Changes this host's NVIDIA driver as one transaction.
#
#   transaction run            what /var/lib/farrier/nvidia/open says; also after an interruption
#   transaction keep           guards and modules of the driver that is installed, made whole again
#   transaction remove NAME... takes these packages, and all that this role made, away
#
# Runs as the unit farrier-driver.service, so that a lost connection does not end it. The journal is
# the directory `open`: it is complete before the first change, says in `phase` how far things came,
# and is renamed to `current` when all is done. Every phase may be repeated.
set -eu
STATE=/var/lib/farrier/nvidia
PREFERENCES=/etc/apt/preferences.d/farrier-nvidia
BLACKLIST=/etc/apt/apt.conf.d/60farrier-nvidia
PATH=/usr/sbin:/usr/bin:/sbin:/bin
# needrestart would restart engines and nginx in the middle of it.
export PATH LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 NEEDRESTART_MODE=l
cd "$STATE"

exec 9>"$STATE/lock"
flock 9

apt() { # apt-get with what makes it answer for itself
    apt-get -q -y -o DPkg::Lock::Timeout=__LOCK_TIMEOUT__ -o Dpkg::Options::=--force-confdef \
        -o Dpkg::Options::=--force-confold -o APT::Install-Recommends=false "$@" 9>&-
}

phase() { # NAME: written at once and whole
    echo "$1" >open/phase.new
    mv -f open/phase.new open/phase
    echo "farrier: $1"
}

put() { # FILE TARGET: a copy, at once and whole
    [ ! -e "$1" ] || cmp -s "$1" "$2" || {
        cp "$1" "$2.farrier-new"
        chmod 644 "$2.farrier-new"
        sync "$2.farrier-new"
        mv -f "$2.farrier-new" "$2"
    }
}

names() { cut -d' ' -f1 "$1"; }

guard() { # DIRECTORY: neither apt nor unattended-upgrades may bring another driver
    put "$1/preferences" "$PREFERENCES"
    put "$1/blacklist" "$BLACKLIST"
}

hold() { # DIRECTORY
    names "$1/set" | xargs apt-mark hold >/dev/null
}

unpack_again() { # packages that dpkg was killed over: it wants them anew, and apt does not see that
    again=$(dpkg-query -W -f '${db:Status-Eflag} ${binary:Package}\n' | sed -n 's/^reinstreq //p')
    # shellcheck disable=SC2086 - names
    [ -z "$again" ] || apt --fix-broken --reinstall --allow-change-held-packages \
        --allow-downgrades install $again ||
        echo "farrier: not unpacked again: $again"
}

steps() { # what apt would install in which version, and remove, in any order
    sed -n -E 's/^Inst ([^ ]+) (\[[^]]*\] )?\(([^ )]+).*/Inst \1 \3/p
        s/^(Remv|Purg) ([^ ]+).*/\1 \2/p' | sort
}

rehearse() { # ARGUMENT...: the real transaction, with the preferences that it will have
    rm -rf open/parts
    mkdir open/parts
    for file in /etc/apt/preferences.d/*; do
        [ ! -f "$file" ] || cp "$file" open/parts/
    done
    cp open/preferences open/parts/farrier-nvidia
    apt-get -s -q -y -o Dir::Etc::PreferencesParts="$STATE/open/parts" \
        -o APT::Install-Recommends=false --fix-broken "$@"
}

sources_of_modules() { # the DKMS trees that the set's packages brought
    names "$1/set" | xargs dpkg -L 2>/dev/null | grep '^/usr/src/[^/]*/dkms.conf$' | sort -u
}

build() { # DIRECTORY: every module for every kernel that has headers; all kernels, then the verdict
    failed=
    for conf in $(sources_of_modules "$1"); do
        tree=${conf%/dkms.conf}
        tree=${tree##*/}
        version=${tree##*-}
        name=${tree%-*}
        for directory in /lib/modules/*; do
            kernel=${directory##*/}
            [ -e "$directory/build" ] || continue
            state=$(dkms status -m "$name" -v "$version" -k "$kernel" 2>/dev/null || true)
            case $state in
                *WARNING* | *"original_module"*) ;;
                *installed*)
                    found=$(modinfo -k "$kernel" -F version "$(module_file "$name" "$kernel")" \
                        2>/dev/null || true)
                    [ "$found" != "$version" ] || continue
                    ;;
            esac
            echo "farrier: $name/$version is built for $kernel"
            dkms install --force -m "$name" -v "$version" -k "$kernel" 9>&- ||
                failed="$failed $kernel"
        done
        for kernel in $failed; do
            not_built "$name/$version" "$kernel"
            make_log "$name" "$version" "$kernel" | compiler_said
        done
    done
    [ -z "$failed" ]
}

module_file() { # NAME KERNEL: the first module that DKMS installed for it
    find "/lib/modules/$2" \( -name 'nvidia.ko*' -o -name "$1.ko*" \) 2>/dev/null | head -n 1
}

make_log() { # NAME VERSION KERNEL
    for log in "/var/lib/dkms/$1/$2/build/make.log" "/var/lib/dkms/$1/$2/$3"/*/log/make.log; do
        [ ! -s "$log" ] || { cat "$log" && return; }
    done
}

not_built() { # MODULE/VERSION KERNEL
    echo "farrier: $1 could not be built for kernel $2; the compiler said:"
}

compiler_said() { # the first errors of a log, else its end
    awk '{ end[NR % 25] = $0 }
        /(error|Error|ERROR): |\*\*\* |Error [0-9]/ && errors < 8 { errors++; print }
        END { if (!errors) for (n = NR - 24; n <= NR; n++) if (n > 0) print end[n % 25] }'
}

failed_builds() { # why a package's own build failed, where one did
    for log in /var/lib/dkms/*/*/build/make.log; do
        [ -s "$log" ] && [ ! "$log" -ot open/arguments ] || continue
        module=${log#/var/lib/dkms/}
        kernel=$(sed -n '1s/.* for kernel \([^ ]*\).*/\1/p' "$log")
        not_built "${module%/build/make.log}" "${kernel:-of this host}"
        compiler_said <"$log"
    done
}

arrived() { # every package of the set is there, configured, in its version
    while read -r name version; do
        now=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$name" 2>/dev/null || true)
        [ "$now" = "installed $version" ] || {
            echo "farrier: $name is '${now:-absent}' instead of 'installed $version'"
            return 1
        }
    done <open/set
}

persistenced() { # Debian starts it when it is installed, device or not
    ls /dev/nvidia[0-9]* >/dev/null 2>&1 ||
        systemctl reset-failed nvidia-persistenced.service nvidia-fabricmanager.service \
            2>/dev/null || true
}

run() {
    [ -d open ] || { echo "farrier: no transaction is open" && return 0; }
    before=$(cat open/phase 2>/dev/null || echo start)
    set --
    for word in $(cat open/arguments); do
        case $word in *-) # gone since an interrupted run, and perhaps in no source any more
            dpkg-query -W "${word%-}" >/dev/null 2>&1 || continue ;;
        esac
        set -- "$@" "$word"
    done
    [ "$before" != start ] || {
        # What was judged is what is done: another apt may have been at work in between.
        rehearse "$@" >open/rehearsal 2>&1 || true
        steps <open/rehearsal >open/steps.now
        steps <open/steps | cmp -s - open/steps.now || {
            echo "farrier: nothing was changed: apt would not do what was planned a moment ago:"
            grep -E '^E:|^ ' open/rehearsal || true
            steps <open/steps | diff - open/steps.now || true
            rm -rf open
            return 1
        }
    }
    phase pin
    cat open/new >>installed
    sync installed
    guard open
    sync
    phase repair
    unpack_again
    [ -z "$(dpkg --audit; ls /var/lib/dpkg/updates)" ] ||
        dpkg --configure -a --force-confdef --force-confold 9>&- ||
        echo "farrier: dpkg left something for apt-get --fix-broken"
    phase download
    apt --fix-broken --download-only "$@"
    phase install
    apt --fix-broken "$@" || { failed_builds && return 1; }
    phase build
    build open
    arrived
    phase holds
    [ ! -d current ] || names current/set | while read -r name; do
        grep -q "^$name " open/set || apt-mark unhold "$name" >/dev/null 2>&1 || true
    done
    hold open
    persistenced
    rm -rf previous open/parts open/rehearsal open/steps.now
    [ ! -d current ] || mv current previous
    mv open current
    rm -rf previous
    sync
    echo "farrier: done"
}

keep() {
    [ -d current ] || { echo "farrier: no driver of ours is here" && return 1; }
    guard current
    build current
    hold current
    persistenced
}

remove() { # NAME...
    [ ! -d current ] || names current/set | xargs apt-mark unhold >/dev/null 2>&1 || true
    [ ! -d open ] || names open/set | xargs apt-mark unhold >/dev/null 2>&1 || true
    rm -f "$PREFERENCES" "$BLACKLIST"
    # Not dpkg --configure -a, which would compile first what goes; this much makes dpkg whole.
    dpkg --set-selections </dev/null
    trees=$(for d in current open; do [ ! -d $d ] || sources_of_modules $d; done)
    [ $# = 0 ] || apt --fix-broken -o Dpkg::Options::=--force-remove-reinstreq \
        --allow-change-held-packages purge "$@"
    for conf in $trees; do # what an interrupted build left
        tree=${conf%/dkms.conf}
        tree=${tree##*/}
        [ -e "$conf" ] || rm -rf "/var/lib/dkms/${tree%-*}" "/usr/src/$tree"
    done
    for directory in /lib/modules/*; do # what depmod and DKMS wrote where no kernel is left
        [ -d "$directory" ] || continue
        [ -d "$directory/kernel" ] || [ -e "$directory/build" ] || rm -rf "$directory"
    done
    # DKMS' signing key is of no use without DKMS, unless the firmware was taught to trust it.
    if ! command -v dkms >/dev/null && [ -d /var/lib/dkms ] &&
        ! mokutil --test-key /var/lib/dkms/mok.pub 2>/dev/null | grep -q 'already enrolled'; then
        rm -f /var/lib/dkms/mok.key /var/lib/dkms/mok.pub
    fi
    rmdir /lib/modules /var/lib/dkms 2>/dev/null || true
    rm -f /etc/modprobe.d/farrier-nouveau.conf /etc/modprobe.d/farrier-nvidia.conf \
        /etc/modules-load.d/farrier-nvidia.conf
    if [ -e initramfs ] && command -v update-initramfs >/dev/null; then
        update-initramfs -u -k all 9>&-
    fi
    rm -rf current open previous installed initramfs
    echo "farrier: removed"
}

command=$1
shift
"$command" "$@"
