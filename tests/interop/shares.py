"""The optional key share of a login (section 7): X25519 and ML-KEM-768 side by side. Where the installed `cryptography`
has no ML-KEM, nothing is offered."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

try:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
except ImportError:
    MLKEM768PrivateKey = None

CIPHERTEXT = 1088


class KeyShares:
    """The client's half. `offer` is None where there is none."""

    def __init__(self):
        self.offer = self.kem = None
        try:
            self.kem = MLKEM768PrivateKey and MLKEM768PrivateKey.generate()
        except UnsupportedAlgorithm:
            pass
        if self.kem:
            self.x25519 = X25519PrivateKey.generate()
            public = self.x25519.public_key().public_bytes_raw()
            self.offer = self.kem.public_key().public_bytes_raw() + public

    def secret(self, answer):
        """What the server's answer gives; nothing if there is none."""
        if not answer:
            return b""
        theirs = X25519PublicKey.from_public_bytes(answer[CIPHERTEXT:])
        return self.kem.decapsulate(answer[:CIPHERTEXT]) + self.x25519.exchange(theirs)
