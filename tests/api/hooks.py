"""What schemathesis is told about this server beyond its document: who asks, and names of things that exist.

Generated cases know neither an account nor a valid signature, so that alone they would only meet the first refusals.
Each case is sent as one of the callers that its route tells apart, and some of its made-up names are replaced by real
ones.
"""

import atexit
import collections
import os
import random
import threading

import schemathesis
from people import Person, b64, call, framed, multi_recipient

BASE = os.environ["BLIND_RELAY_API"]
chance = random.Random(os.environ.get("BLIND_RELAY_API_SEED"))


class People:
    """A caller and somebody to reach. Whoever was deleted by a case is replaced."""

    def __init__(self):
        self.lock = threading.Lock()
        self.caller = Person.register(BASE)
        self.target = Person.register(BASE)
        self.form = self.caller.form(BASE)

    def replace_dead(self):
        with self.lock:
            for name in ("caller", "target"):
                try:
                    call(BASE, "GET", "/v1/accounts/whoami", getattr(self, name).device_credentials())
                except RuntimeError:
                    setattr(self, name, Person.register(BASE))
                    self.form = self.caller.form(BASE)


people = People()
seen = collections.defaultdict(collections.Counter)


@atexit.register
def report():
    """How deep it went: each route with the statuses it answered, and how often."""
    for label in sorted(seen):
        counts = sorted(seen[label].items())
        print(f"{label:60}", *(f"{status}:{count}" for status, count in counts))


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Values at the upper bounds of the large ones would take all the time there is; other tests have them."""
    schemas = raw_schema["components"]["schemas"]
    schemas["ContentText"]["maxLength"] = 64
    schemas["SendIn"]["properties"]["messages"]["maxItems"] = 3
    for name in ("preKeys", "pqPreKeys"):
        schemas["KeyUploadIn"]["properties"][name]["maxItems"] = 2


@schemathesis.hook
def before_call(context, case, kwargs):
    authorization = None
    for name in case.path_parameters or {}:
        if chance.random() < 0.7:
            real = real_name(case.operation.path, name)
            if real is not None:
                case.path_parameters[name] = real
    if case.operation.path == "/v1/messages/multi_recipient" and chance.random() < 0.6:
        case.body = multi_recipient([people.caller, people.target])
    elif isinstance(case.body, dict) and chance.random() < 0.6:
        authorization = realistic(case)
    if authorization is not None:
        case.headers["Authorization"] = authorization
    elif chance.random() < 0.9:
        show_who_asks(case)


def show_who_asks(case):
    access = case.operation.definition.raw.get("x-access")
    headers = case.headers
    for name in ("Authorization", "Unidentified-Access-Key"):
        headers.pop(name, None)
    kind = chance.random()
    if access in ("Number", "LinkToken") and kind < 0.9:
        headers["Authorization"] = Person.new_number_credentials()
    elif access == "UploadForm" and kind < 0.9:
        headers["Authorization"] = people.form[1]
        headers["Tus-Resumable"] = "1.0.0"
        if chance.random() < 0.7:
            headers["Upload-Length"] = "5"
            headers["Upload-Offset"] = chance.choice(["0", "5"])
    elif access == "AccessKeys" or kind > 0.8:
        headers["Unidentified-Access-Key"] = b64(people.target.access_key)
    elif access not in ("Anyone", "Anonymous") or kind > 0.7:
        headers["Authorization"] = people.caller.device_credentials()


@schemathesis.serializer("application/offset+octet-stream", "application/vnd.signal-messenger.mrm")
def send_bytes(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def filter_failure(context, failure, case, response):
    # The document's format has no way to say that an answer has a body or none.
    said = case.operation.definition.raw["responses"].get(str(response.status_code), {})
    return bool(response.content) or not said.get("x-may-be-empty")


@schemathesis.hook
def after_call(context, case, response):
    seen[case.operation.label][response.status_code] += 1
    own = case.headers.get("Authorization") == people.caller.device_credentials()
    if own and (response.status_code == 401 or case.method.upper() == "DELETE"):
        people.replace_dead()


def real_name(path, name):
    """Something that exists, for a parameter of a path."""
    if path.startswith("/v1/verification/session/"):
        return call(BASE, "POST", "/v1/verification/session", None, {"number": Person.new_number()})["id"]
    if path.startswith("/v1/devices/"):
        return "2" if name == "id" else None
    if name in ("target", "destination", "source") or path.startswith("/v1/accounts/account/"):
        caller, target = people.caller, people.target
        return chance.choice([target.aci, f"PNI:{target.pni}", caller.aci, f"PNI:{caller.pni}"])
    if name == "device":
        return chance.choice(["1", "*"])
    if name == "upload":
        return chance.choice([people.form[0], people.form[1].split(" ")[1]])
    if path.startswith("/attachments/"):
        return people.form[0]
    if path.startswith("/v1/data/"):
        return DATA_KEY
    return None


def realistic(case):
    """Makes a generated body one that gets past the first checks; says what it needs to be sent with, if anything."""
    body, caller, target = case.body, people.caller, people.target
    if isinstance(body.get("messages"), list):
        kind = chance.choice([1, 3, 6, 8])
        body["messages"] = [
            {
                "type": kind,
                "destinationDeviceId": chance.choice([1, 1, 1, 2]),
                "destinationRegistrationId": chance.choice([target, caller]).registration_id,
                "content": b64(framed(kind)),
            }
        ]
    if "aciIdentityKey" in body:
        person = Person()
        body.update(person.registration(BASE))
        return person.number_credentials()
    if "verificationCode" in body:
        try:
            body.update(caller.link(BASE))
        except RuntimeError:
            # It has as many devices as it may have.
            pass
    for field in ("signedPreKey", "pqLastResortPreKey"):
        if field in body:
            body[field] = caller.aci_keys[field != "signedPreKey"]
    if "operations" in body:
        body["operations"] = [{"key": DATA_KEY, "version": chance.choice([0, 1]), "value": "AAAA"}]
    return None


DATA_KEY = "A" * 43
