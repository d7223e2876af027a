#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-only
"""Makes sealed-queue.json: rows of the sealed queue by another implementation than ours.

Needs pyhpke, cryptography and pynacl. Usage: python3 sealed_queue.py > sealed-queue.json
The format is described in ../src/sealed_queue.rs. Everything is derived from counters, so each run makes the same file.
"""

import hashlib
import hmac
import json
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_scalarmult_base
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKeyPair

SUITE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.EXPORT_ONLY)
ROOM = 192


def hkdf(secret, salt, info):
    """RFC 5869 with SHA-256, for up to 32 bytes."""
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def row(private, ephemeral, nonce, mailbox, kib, envelope):
    public = SUITE.kem.deserialize_public_key(crypto_scalarmult_base(private))
    pair = KEMKeyPair(
        SUITE.kem.deserialize_private_key(ephemeral),
        SUITE.kem.deserialize_public_key(crypto_scalarmult_base(ephemeral)),
    )
    encapsulated, context = SUITE.create_sender_context(public, b"blind-relay sealed queue v1", eks=pair)
    key = context.export(b"row key", 32)
    padded = struct.pack(">I", len(envelope)) + envelope
    padded += bytes(kib * 1024 + ROOM - len(padded))
    return encapsulated + nonce + AESGCM(key).encrypt(nonce, padded, struct.pack(">qH", mailbox, kib))


def cases():
    passwords = [b"correct horse battery staple", b"\x00\xff password with any bytes", b"x" * 256]
    sizes = [(0, 1), (1, 1), (1024 + ROOM - 4, 1), (1300, 2), (3000, 4), (2048 + ROOM - 4, 2)]
    for index, (length, kib) in enumerate(sizes):
        draw = lambda what: hashlib.sha256(f"{what} {index}".encode()).digest()
        password, salt = passwords[index % 3], draw("salt")[:16]
        private = hkdf(password, salt, b"blind-relay queue key v1")
        mailbox = [1, -1, 2**63 - 1, -(2**63), 42, 0][index]
        nonce, ephemeral = draw("nonce")[:12], draw("ephemeral")
        envelope = bytes((7 * n + index) % 256 for n in range(length))
        sealed = row(private, ephemeral, nonce, mailbox, kib, envelope)
        yield {
            "password": password.hex(),
            "salt": salt.hex(),
            "privateKey": private.hex(),
            "publicKey": crypto_scalarmult_base(private).hex(),
            "mailbox": str(mailbox),
            "bucketKib": kib,
            # Byte n of an envelope is (7 n + first) mod 256.
            "envelopeFirst": index,
            "envelopeLength": length,
            "row": sealed.hex(),
        }


print(json.dumps({"format": "sealed queue v1", "cases": list(cases())}, indent=1))
