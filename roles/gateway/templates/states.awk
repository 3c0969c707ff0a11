# Written by Farrier's role gateway: awk -f states.awk haproxy.cfg STATES
#
# Of HAProxy's `show servers state`, the lines that still fit haproxy.cfg. HAProxy takes ports from
# its state file rather than from its configuration (2.6 and 3.0): a host whose port was changed would
# be asked on the old one after a reload.
FNR == NR {
    if ($1 == "backend") backend = $2
    if ($1 == "server") {
        port = $3
        sub(/.*:/, "", port)
        for (at = 4; at < NF; at++) if ($at == "agent-port") agent = $(at + 1)
        wanted[backend, $2] = port " " agent
    }
    next
}
/^#/ || NF < 25 { print; next }
($2, $4) in wanted && wanted[$2, $4] == $19 " " $25 { print }
