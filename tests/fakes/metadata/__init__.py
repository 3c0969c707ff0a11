"""A stand-in for the metadata services of AWS, GCP and Azure: ``metadata.py`` is the program."""
