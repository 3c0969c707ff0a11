"""What holds for the machines of group monitor: Prometheus."""

# The defaults are on the role's page, docs/roles/prometheus.md; write here what differs.
