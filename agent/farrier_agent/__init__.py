"""Farrier's on-host agent: what runs beside the engines and tells the truth about them."""

__version__ = "0.1.0"
