// What one device knows: its account, its keys, its sessions. libsignal asks for them through five small stores, all
// of them views of one `Device`, so that the whole can be written to a file in one piece (see state-file.mjs).

import {
  Direction,
  IdentityChange,
  IdentityKeyPair,
  IdentityKeyStore,
  KyberPreKeyRecord,
  KyberPreKeyStore,
  PreKeyRecord,
  PreKeyStore,
  ProtocolAddress,
  PublicKey,
  SessionRecord,
  SessionStore,
  SignedPreKeyRecord,
  SignedPreKeyStore,
} from './signal.mjs';

export class Device {
  /** @type {Map<string, Uint8Array>} sessions by protocol address */
  sessions = new Map();
  /** @type {Map<string, Uint8Array>} the identity key seen last, by protocol address */
  peers = new Map();
  /** @type {Set<string>} protocol addresses whose identity key changed and was not accepted yet */
  changedPeers = new Set();
  preKeys = new Map();
  signedPreKeys = new Map();
  kyberPreKeys = new Map();
  /** @type {Set<string>} what the last-resort key was used for, to refuse replays */
  lastResortUses = new Set();
  lastResortId = 0;
  nextKeyId = 1;

  /** @param account see {@link ACCOUNT_FIELDS}; `aci` is known after registration */
  constructor(account) {
    Object.assign(this, account);
    this.identityStore = new Identities(this);
    this.sessionStore = new Sessions(this);
    this.preKeyStore = new PreKeys(this);
    this.signedPreKeyStore = new SignedPreKeys(this);
    this.kyberPreKeyStore = new KyberPreKeys(this);
  }

  get address() {
    return ProtocolAddress.new(this.aci, this.deviceId);
  }

  /** The device ids of a peer that we have a session with. */
  knownDevices(aci) {
    return [...this.sessions.keys()]
      .filter((name) => name.startsWith(`${aci}.`))
      .map((name) => Number(name.slice(aci.length + 1)))
      .sort((a, b) => a - b);
  }

  /** Takes a changed identity key of this peer for good: the next contact counts as the first one. */
  trustAgain(aci) {
    for (const name of [...this.peers.keys()].filter((name) => name.startsWith(`${aci}.`))) {
      if (!this.changedPeers.delete(name)) {
        this.peers.delete(name);
        this.sessions.delete(name);
      }
    }
  }

  toJSON() {
    const map = (entries) => Object.fromEntries([...entries].map(([key, bytes]) => [key, base64(bytes)]));
    return {
      version: 1,
      account: Object.fromEntries(
        ACCOUNT_FIELDS.map(([name, kind]) => [name, kind === 'bytes' ? base64(this[name]) : this[name]]),
      ),
      identity: base64(this.identity.serialize()),
      pniIdentity: base64(this.pniIdentity.serialize()),
      nextKeyId: this.nextKeyId,
      lastResortId: this.lastResortId,
      lastResortUses: [...this.lastResortUses],
      changedPeers: [...this.changedPeers],
      sessions: map(this.sessions),
      peers: map(this.peers),
      preKeys: map(this.preKeys),
      signedPreKeys: map(this.signedPreKeys),
      kyberPreKeys: map(this.kyberPreKeys),
    };
  }

  static fromJSON(json) {
    if (json.version !== 1) throw new Error(`this state has version ${json.version}, this program knows version 1`);
    const map = (object, key = String) =>
      new Map(Object.entries(object).map(([name, text]) => [key(name), bytesFrom(text)]));
    const device = new Device({
      ...Object.fromEntries(
        ACCOUNT_FIELDS.map(([name, kind]) => [
          name,
          kind === 'bytes' ? bytesFrom(json.account[name]) : json.account[name],
        ]),
      ),
      identity: IdentityKeyPair.deserialize(bytesFrom(json.identity)),
      pniIdentity: IdentityKeyPair.deserialize(bytesFrom(json.pniIdentity)),
    });
    device.nextKeyId = json.nextKeyId;
    device.lastResortId = json.lastResortId;
    device.lastResortUses = new Set(json.lastResortUses);
    device.changedPeers = new Set(json.changedPeers);
    device.sessions = map(json.sessions);
    device.peers = map(json.peers);
    device.preKeys = map(json.preKeys, Number);
    device.signedPreKeys = map(json.signedPreKeys, Number);
    device.kyberPreKeys = map(json.kyberPreKeys, Number);
    return device;
  }
}

export const base64 = (bytes) => Buffer.from(bytes).toString('base64');
export const bytesFrom = (text) => new Uint8Array(Buffer.from(text, 'base64'));

const ACCOUNT_FIELDS = [
  ['aci', 'text'],
  ['pni', 'text'],
  ['deviceId', 'number'],
  ['number', 'text'],
  ['password', 'text'],
  ['registrationId', 'number'],
  ['pniRegistrationId', 'number'],
  ['accessKey', 'bytes'],
  ['recoveryPassword', 'bytes'],
];

class Identities extends IdentityKeyStore {
  #device;
  constructor(device) {
    super();
    this.#device = device;
  }

  async getIdentityKey() {
    return this.#device.identity.privateKey;
  }

  async getLocalRegistrationId() {
    return this.#device.registrationId;
  }

  async saveIdentity(address, key) {
    const name = address.toString();
    const bytes = key.serialize();
    const known = this.#device.peers.get(name);
    this.#device.peers.set(name, bytes);
    if (!known || Buffer.compare(known, bytes) === 0) return IdentityChange.NewOrUnchanged;
    this.#device.changedPeers.add(name);
    return IdentityChange.ReplacedExisting;
  }

  // Trust on first use. A changed key may still talk to us, the reader is told; we answer only after a person has
  // accepted the new key (`trustAgain`).
  async isTrustedIdentity(address, key, direction) {
    if (direction === Direction.Receiving) return true;
    const name = address.toString();
    const known = this.#device.peers.get(name);
    if (!known) return true;
    return !this.#device.changedPeers.has(name) && Buffer.compare(known, key.serialize()) === 0;
  }

  async getIdentity(address) {
    const bytes = this.#device.peers.get(address.toString());
    return bytes ? PublicKey.deserialize(bytes) : null;
  }
}

class Sessions extends SessionStore {
  #device;
  constructor(device) {
    super();
    this.#device = device;
  }

  async saveSession(address, record) {
    this.#device.sessions.set(address.toString(), record.serialize());
  }

  async getSession(address) {
    const bytes = this.#device.sessions.get(address.toString());
    return bytes ? SessionRecord.deserialize(bytes) : null;
  }

  async getExistingSessions(addresses) {
    return addresses.map((address) => {
      const bytes = this.#device.sessions.get(address.toString());
      if (!bytes) throw new Error('there is no session with one of the recipients');
      return SessionRecord.deserialize(bytes);
    });
  }
}

class PreKeys extends PreKeyStore {
  #device;
  constructor(device) {
    super();
    this.#device = device;
  }

  async savePreKey(id, record) {
    this.#device.preKeys.set(id, record.serialize());
  }

  async getPreKey(id) {
    return PreKeyRecord.deserialize(found(this.#device.preKeys.get(id), 'one-time prekey', id));
  }

  async removePreKey(id) {
    this.#device.preKeys.delete(id);
  }
}

class SignedPreKeys extends SignedPreKeyStore {
  #device;
  constructor(device) {
    super();
    this.#device = device;
  }

  async saveSignedPreKey(id, record) {
    this.#device.signedPreKeys.set(id, record.serialize());
  }

  async getSignedPreKey(id) {
    return SignedPreKeyRecord.deserialize(found(this.#device.signedPreKeys.get(id), 'signed prekey', id));
  }
}

class KyberPreKeys extends KyberPreKeyStore {
  #device;
  constructor(device) {
    super();
    this.#device = device;
  }

  async saveKyberPreKey(id, record) {
    this.#device.kyberPreKeys.set(id, record.serialize());
  }

  async getKyberPreKey(id) {
    return KyberPreKeyRecord.deserialize(found(this.#device.kyberPreKeys.get(id), 'Kyber prekey', id));
  }

  async markKyberPreKeyUsed(id, signedPreKeyId, baseKey) {
    if (id !== this.#device.lastResortId) {
      this.#device.kyberPreKeys.delete(id);
      return;
    }
    const use = `${id}.${signedPreKeyId}.${base64(baseKey.serialize())}`;
    if (this.#device.lastResortUses.has(use)) throw new Error('this first message was seen before');
    this.#device.lastResortUses.add(use);
  }
}

function found(bytes, what, id) {
  if (!bytes) throw new Error(`the ${what} ${id} is not here: it was used before, or belongs to another device`);
  return bytes;
}
