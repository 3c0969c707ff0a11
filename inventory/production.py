"""Your machines. `pyinfra inventory deploys/llm.py` sets up what is written here.

A group is a list, and the name of the list is what its machines are for:

    gpu       serve models                    data: group_data/gpu.py
    gateway   the fleet's one endpoint        data: group_data/gateway.py
    monitor   Prometheus                      data: group_data/monitor.py

A machine may be in several. What holds for all of them is in group_data/all.py; what holds for
one stands beside its name, and wins. A machine is its name, or its name and its data:

    gpu = [
        "gpu01.example.com",
        ("gpu02", {"ssh_hostname": "192.0.2.12", "ssh_port": 2222, "ssh_user": "admin"}),
    ]

    ssh_hostname   address or name to connect to, where the machine's name is none
    ssh_port       default 22
    ssh_user       who logs in; sudo is asked for what needs root
    ssh_key        private key file; default: your agent's keys and those in ~/.ssh
    ssh_config_file   an ssh_config whose aliases, ProxyJump, … count for this machine
    address        where the other machines reach it, if not at ssh_hostname
    accelerator    "cuda" (default) or "cpu"
    models         what it serves, as in group_data/gpu.py:

    from farrier.spec import Model

    gpu = [
        ("gpu03", {
            "models": [
                Model("qwen3-8b", source="path:/srv/models/qwen3-8b", gpus=[0]),
                Model("bge-m3", source="path:/srv/models/bge-m3", gpus=[1], port=8102),
            ],
        }),
    ]

Try it before you trust it: `pyinfra inventory debug-inventory` shows who has which data,
`pyinfra --dry inventory deploys/llm.py` what would be changed. Both change nothing.
"""

gpu = []

gateway = []

monitor = []
