"""What a host is made of and how fast it is: recorded once, compared with ever after."""
