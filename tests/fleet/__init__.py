"""The fleet as one: two gateways, three hosts that serve, rolled under load (lab ``fleet``)."""
