"""What holds for the machines of group monitor: Prometheus, Alertmanager, Grafana."""

# The defaults are on the roles' pages, docs/roles; write here what differs. docs/monitoring.md says
# more of alerts and pictures.
#
# Who is told of alerts; secrets stand in files on your machine (chmod 600):
#
# from farrier.spec import Mail, PagerDuty, Slack, Webhook
#
# alertmanager_receivers = [
#     PagerDuty("oncall", key_file="secrets/pagerduty.key", severities=["critical"]),
#     Slack("team", url_file="secrets/slack.url", channel="#gpu-alerts"),
# ]
#
# Where people can read docs/runbooks, to which alerts link:
#
# prometheus_runbook_url = "https://git.example.com/ops/farrier/src/main/docs/runbooks"
#
# grafana = True
# grafana_admin_password_file = "secrets/grafana.password"
