"""People for the API tests: numbers, passwords, keys with real signatures, and accounts made of them.

Only what a registration needs. The arithmetic is RFC 8032's and not in constant time: these keys protect nothing.
"""

import base64
import hashlib
import json
import secrets
import urllib.error
import urllib.request

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
BASE_Y = 4 * pow(5, -1, P) % P


def b64(data):
    return base64.b64encode(data).decode()


def _x_of(y):
    """The even x of a point with that y."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if x & 1 else x


def _extended(x, y):
    return x, y, 1, x * y % P


def _add(one, other):
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


BASE = _extended(_x_of(BASE_Y), BASE_Y)


def _times_base(scalar):
    total, power = (0, 1, 1, 0), BASE
    while scalar:
        if scalar & 1:
            total = _add(total, power)
        power = _add(power, power)
        scalar >>= 1
    return total


def _compressed(point):
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    return (y * inverse % P | (x * inverse % P & 1) << 255).to_bytes(32, "little")


def _public(point):
    """The serialised public key: 0x05 and the u coordinate."""
    _, y, z, _ = point
    return b"\x05" + ((z + y) * pow(z - y, -1, P) % P).to_bytes(32, "little")


def _scalar():
    return secrets.randbelow(ORDER - 1) + 1


class Identity:
    """An identity key with its private half."""

    def __init__(self):
        self.private = _scalar()
        point = _times_base(self.private)
        self.edwards = _compressed(point)
        self.public = _public(point)

    def sign(self, message):
        """XEdDSA with the sign of the key in the last byte's top bit."""
        nonce = _scalar()
        r = _compressed(_times_base(nonce))
        challenge = int.from_bytes(hashlib.sha512(r + self.edwards + message).digest(), "little")
        s = bytearray(((nonce + challenge * self.private) % ORDER).to_bytes(32, "little"))
        s[31] |= self.edwards[31] & 0x80
        return r + bytes(s)


def ec_key():
    return _public(_times_base(_scalar()))


def kyber_key():
    """Nobody but its owner can tell a public Kyber key from random bytes."""
    return b"\x08" + secrets.token_bytes(1568)


def signed(identity, key_id, key):
    return {"keyId": key_id, "publicKey": b64(key), "signature": b64(identity.sign(key))}


class Person:
    """Someone with one device, once registered."""

    def __init__(self):
        self.number = self.new_number()
        self.password = secrets.token_hex(16)
        self.access_key = secrets.token_bytes(16)
        self.registration_id = secrets.randbelow(16380) + 1
        self.aci_identity, self.pni_identity = Identity(), Identity()
        self.aci_keys = self._keys(self.aci_identity)
        self.pni_keys = self._keys(self.pni_identity)
        self.aci = self.pni = None

    @staticmethod
    def new_number():
        return f"+49{secrets.randbelow(10**10):010}"

    @classmethod
    def new_number_credentials(cls):
        return basic(cls.new_number(), "a password of nobody")

    @staticmethod
    def _keys(identity):
        return signed(identity, 1, ec_key()), signed(identity, 2, kyber_key())

    @classmethod
    def register(cls, base):
        person = cls()
        account = call(base, "POST", "/v1/registration", person.number_credentials(), person.registration(base))
        person.aci, person.pni = account["uuid"], account["pni"]
        return person

    @property
    def attributes(self):
        return {
            "fetchesMessages": True,
            "registrationId": self.registration_id,
            "pniRegistrationId": self.registration_id,
            "capabilities": {"spqr": True},
            "unidentifiedAccessKey": b64(self.access_key),
        }

    @property
    def signed_keys(self):
        return {
            "aciSignedPreKey": self.aci_keys[0],
            "pniSignedPreKey": self.pni_keys[0],
            "aciPqLastResortPreKey": self.aci_keys[1],
            "pniPqLastResortPreKey": self.pni_keys[1],
        }

    def registration(self, base):
        """The body of a registration, with a session that is verified."""
        session = call(base, "POST", "/v1/verification/session", None, {"number": self.number})["id"]
        call(base, "PUT", f"/v1/verification/session/{session}/code", None, {"code": "1"})
        return {
            "sessionId": session,
            "accountAttributes": self.attributes,
            "skipDeviceTransfer": True,
            "aciIdentityKey": b64(self.aci_identity.public),
            "pniIdentityKey": b64(self.pni_identity.public),
            **self.signed_keys,
        }

    def link(self, base):
        """The body with which one more device joins this account."""
        code = call(base, "GET", "/v1/devices/provisioning/code", self.device_credentials())["verificationCode"]
        return {"verificationCode": code, "accountAttributes": self.attributes, **self.signed_keys}

    def form(self, base):
        """The key and the bearer token of an upload form."""
        form = call(base, "GET", "/v4/attachments/form/upload", self.device_credentials())
        return form["key"], form["headers"]["Authorization"]

    def number_credentials(self):
        return basic(self.number, self.password)

    def device_credentials(self):
        return basic(self.aci, self.password)


def framed(kind):
    """Content that passes for a message of the type: one of a session (1 and 0), the first of one, sealed, a notice."""
    key = b"\x05" + secrets.token_bytes(32)

    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    message = b"\x34" + field(1, key) + b"\x10\x03" + field(4, secrets.token_bytes(16)) + secrets.token_bytes(8)
    if kind == 3:
        return b"\x34" + field(2, key) + field(3, key) + field(4, message) + b"\x30\x02"
    if kind == 6:
        return b"\x11" + field(1, key) + field(2, secrets.token_bytes(43)) + field(3, secrets.token_bytes(60))
    if kind == 8:
        return b"\xc0" + field(8, b"\x10\x05\x18\x01") + b"\x80"
    return message


def multi_recipient(people):
    """A sealed message to device 1 of each of them."""
    message = bytes([0x23, len(people)])
    for person in people:
        message += b"\x00" + bytes.fromhex(person.aci.replace("-", ""))
        message += b"\x01" + person.registration_id.to_bytes(2, "big") + secrets.token_bytes(48)
    return message + secrets.token_bytes(64)


def basic(user, password):
    return "Basic " + b64(f"{user}:{password}".encode())


def call(base, method, path, authorization=None, body=None):
    """One request; the JSON of its answer, or None if there is none."""
    headers = {"content-type": "application/json"}
    if authorization:
        headers["authorization"] = authorization
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
    except urllib.error.HTTPError as refused:
        raise RuntimeError(f"{method} {path}: {refused.code} {refused.read()!r}") from None
    return json.loads(text) if text else None
