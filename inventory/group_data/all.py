"""What holds for every machine: how it is reached. A machine's own data wins over this."""

from farrier.ssh import connect_kwargs

# A host key that is not in known_hosts is refused, and so is one that changed. This also wins over
# StrictHostKeyChecking of an ssh_config. Which file counts: ssh_known_hosts_file, else
# UserKnownHostsFile of the machine's ssh_config, else ~/.ssh/known_hosts.
ssh_strict_host_key_checking = "yes"

# TCP_NODELAY (an operation takes 3-8 ms instead of 44-52), nothing signed or exchanged with
# SHA-1, and 10 seconds for a machine to answer. Give connect_kwargs another timeout if need be.
ssh_paramiko_connect_kwargs = connect_kwargs(timeout=10)

# ssh_user = "admin"
# ssh_known_hosts_file = "~/.ssh/known_hosts"
