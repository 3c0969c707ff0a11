"""What holds for the machines of group gateway: the fleet's one endpoint."""

# Who may use the fleet's models through it: a file with your clients' keys, as group_data/gpu.py
# shows it, or in words that nobody is asked. Machines of group gpu behind a gateway ask for no key
# themselves, so one file for both can stand in group_data/all.py.
#
# api_keys_file = "secrets/api_keys.toml"
#
# open_access = "anyone who can reach this host may use its models"
#
# Machines of group gpu let a gateway in by its address: that of the inventory (address, else
# ssh_hostname, else its name, which they then have to find). Where it asks from another one, say so
# in group_data/gpu.py: nginx_gateways.
