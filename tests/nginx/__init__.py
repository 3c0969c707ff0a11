"""The role nginx alone, on Debian 12 and 13, in front of a stand-in engine."""
