"""One folder per thing that is installed on hosts; deploys compose them."""
