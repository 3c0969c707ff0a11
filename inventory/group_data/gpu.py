"""What holds for the machines of group gpu: what they serve, and to whom."""

# Each of these models runs once on every machine of the group. Machines that serve something else
# have models of their own, in inventory/production.py.
#
# from farrier.spec import Model
#
# models = [
#     # a directory that is already on the machines, on one GPU
#     Model("qwen3-8b", source="path:/srv/models/qwen3-8b", gpus=[0]),
#
#     # fetched from the Hugging Face hub, on two GPUs; flags are vLLM's, without their dashes
#     Model(
#         "qwen3-32b",
#         source="hf:Qwen/Qwen3-32B@9216db5781bf21249d130ec9da846c4624c16137",
#         gpus=[1, 2],
#         port=8102,
#         args={"tensor-parallel-size": 2, "max-model-len": 32768, "enable-prefix-caching": True},
#     ),
#
#     # clients ask for another name than the unit has: engine-coder.service
#     Model("Qwen/Qwen3-Coder", replica="coder", source="path:/srv/models/coder",
#           gpus=[3], port=8103),
#
#     # any other server that speaks OpenAI's API
#     Model("tts", engine="custom", gpus=[4], port=8104,
#           command=["/opt/tts/bin/serve", "--host", "{host}", "--port", "{port}"]),
# ]

# Who may use the models: a file on your machine (chmod 600; relative paths: beside config.py) like
#
#     [keys]
#     alice = "…"          # openssl rand -hex 24
#
#     [keys.batch-jobs]    # what its client may do; or sha256 = "…" instead of the key
#     key = "…"
#     models = ["qwen3-8b"]
#     requests_per_minute = 600
#     streams = 8
#
# api_keys_file = "secrets/api_keys.toml"
#
# or nobody asks, which has to be said in words:
#
# open_access = "anyone who can reach this host may use its models"

# Where the inventory has gateways, machines of this group let in nobody else. This lets clients
# with a key in as well:
#
# nginx_clients = "keys"
#
# Addresses of gateways are those of the inventory; where they ask from others:
#
# nginx_gateways = ["198.51.100.0/28"]

# accelerator = "cpu"   # machines without a GPU (vLLM's CPU build); default "cuda"
