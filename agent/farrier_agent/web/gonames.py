"""What the web configuration calls by Go's names, in OpenSSL's."""

from __future__ import annotations

import ssl

__all__ = ["ALWAYS_ON", "CIPHERS", "CLIENT_AUTH", "CURVES", "TOO_OLD", "VERSIONS"]

VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
TOO_OLD = frozenset({"TLS10", "TLS11"})
"""Known to Go, and not safe (RFC 8996)."""

CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""Those up to TLS 1.2 that Go's ``tls.CipherSuites()`` lists."""
ALWAYS_ON = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
"""Those of TLS 1.3, which Go uses whatever the list says. So does OpenSSL here."""

CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}

CLIENT_AUTH = {
    "NoClientCert": None,
    "RequireAndVerifyClientCert": None,
    "RequestClientCert": "lets in who shows no certificate, or any",
    "RequireAnyClientCert": "lets in who shows any certificate, also one made a minute ago",
    "RequireClientCert": "is another name of RequireAnyClientCert, which lets in who shows any",
    "VerifyClientCertIfGiven": "lets in who shows no certificate",
}
"""Go's policies, each with the reason why it is refused here; None: it is not."""
