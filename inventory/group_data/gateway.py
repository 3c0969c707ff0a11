"""What holds for the machines of group gateway: the fleet's one endpoint."""
