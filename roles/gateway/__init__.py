"""Role ``gateway``: the fleet's one endpoint, the distribution's HAProxy."""

from __future__ import annotations

from farrier.defaults import Default, Defaults

__all__ = ["DEFAULTS"]

DEFAULTS = Defaults(
    "gateway",
    "The distribution's HAProxy as the fleet's one endpoint: API keys with their limits, a request's"
    " model from its body or `X-Model`, and from there to the replica with the fewest requests. It"
    " follows the hosts' agents; reloading, restarting and upgrading it cuts no request."
    " [The gateway](../gateway.md) says what its answers mean.",
    (
        Default("gateway_port", 80, "Port for clients without TLS; 0: none."),
        Default("gateway_tls_port", 443, "Port for clients with TLS."),
        Default(
            "gateway_tls_certificate",
            "",
            "A file on your machine (mode 600) with the certificate, its chain and its key, in PEM;"
            " empty: no TLS.",
        ),
        Default(
            "gateway_addresses",
            ["0.0.0.0", "[::]"],  # noqa: S104
            "Addresses that it listens on; leave `[::]` out where the kernel has no IPv6.",
        ),
        Default(
            "gateway_max_body_kib",
            1024,
            "Largest body, in KiB, from which the model is read and which is kept for a second"
            " replica. Each request in flight takes up to two of them in memory. Larger bodies need"
            " the header `X-Model`.",
        ),
        Default(
            "gateway_upload_seconds", 300, "Longest time that a client may take to send a body."
        ),
        Default(
            "gateway_silence_seconds",
            3600,
            "Longest silence of a replica or a client within a request, which itself may last as"
            " long as it will.",
        ),
        Default("gateway_connect_seconds", 2, "Longest wait for a host to accept a connection."),
        Default(
            "gateway_keepalive_seconds",
            60,
            "How long a client's idle connection is kept; so long does a planned stop wait for it.",
        ),
        Default(
            "gateway_replica_requests",
            256,
            "Most requests in flight per replica and gateway; more wait in the queue.",
        ),
        Default(
            "gateway_queue_requests", 256, "Most requests that wait per model; one more gets 429."
        ),
        Default("gateway_queue_seconds", 30, "Longest wait in the queue; then 503."),
        Default(
            "gateway_weights",
            {},
            "Shares of replicas that differ from 100, as `{'gpu01:tiny': 50}`; 0 to 256.",
        ),
        Default(
            "gateway_affinity",
            "",
            "What keeps a session on one replica, for its prefix cache: `key`, `user` (the body's"
            " field) or `header NAME`. Empty: each request goes to the replica with the fewest.",
        ),
        Default(
            "gateway_affinity_balance",
            150,
            "With `gateway_affinity`: the percentage of the average load above which a replica's"
            " sessions go to the next one.",
        ),
        Default(
            "gateway_agent_milliseconds", 500, "Time between two questions to a replica's agent."
        ),
        Default("gateway_metrics_port", 8405, "Port of HAProxy's own `/metrics`."),
        Default("gateway_metrics_address", "0.0.0.0", "Address of it."),  # noqa: S104
        Default(
            "gateway_memory_percent",
            0,
            "Part of the host's memory that HAProxy may take, in percent; 0: 60, and 20 on a host"
            " that serves models itself. The number of requests in flight is made of it.",
        ),
        Default(
            "gateway_max_requests", 0, "Most requests in flight; 0: what the memory has room for."
        ),
        Default("gateway_threads", 0, "HAProxy's threads; 0: one for each CPU, at the most 8."),
        Default(
            "gateway_hard_stop_after",
            "24h",
            "After a reload: how long the old process may finish its streams before they are cut.",
        ),
    ),
)
