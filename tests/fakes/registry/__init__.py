"""An image made of this machine's own Python, its archive, and a registry that has it.

The image is a real one, with one layer; the registry is a stand-in that answers what a pull by
digest asks (OCI distribution specification: ``/v2/``, manifests and blobs), without TLS or logins.
"""

from tests.fakes.registry.image import Image, python_image
from tests.fakes.registry.serving import Registry

__all__ = ["Image", "Registry", "python_image"]
