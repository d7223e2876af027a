// One device's conversation with the server: publish prekeys, build sessions, send, receive, acknowledge.

import {
  Aci,
  ErrorCode,
  KEMPublicKey,
  LibSignalErrorBase,
  PreKeyBundle,
  PreKeySignalMessage,
  ProtocolAddress,
  PublicKey,
  SignalMessage,
  SessionRecord,
  processPreKeyBundle,
  sealedSenderDecryptMessage,
  sealedSenderEncryptMessage,
  signalDecrypt,
  signalDecryptPreKey,
  signalEncrypt,
} from './signal.mjs';
import { bytesFrom } from './device.mjs';
import { EnvelopeType, readEnvelope } from './envelope.mjs';
import { makeOneTimePreKeys, toJson } from './keys.mjs';
import { Mutex } from './mutex.mjs';
import { pad, unpad } from './padding.mjs';

/** One-time prekeys in a full upload, and the count below which a client uploads again. */
export const ONE_TIME_PREKEYS = 100;
const LOW_WATER = 10;

const BATCH = 64;
const SEND_ROUNDS = 4;

/**
 * @typedef {object} Message
 * @property {string} from ACI of the sender
 * @property {number} device
 * @property {string} text
 * @property {number} sentAt the sender's clock, ms
 * @property {boolean} sealed whether the server was not told who sent it
 */

export class RelayClient {
  #handlers;
  #persist;
  #trustRoot;
  #connection = null;
  #inbox = [];
  #reading = null;
  // Two users of one session must not overlap: both would load the same ratchet state and one of them would undo the
  // other's step.
  #ratchet = new Mutex();
  #sending = new Mutex();

  /**
   * @param {import('./device.mjs').Device} device
   * @param {object} options
   * @param {() => Promise<void>} [options.persist] stores the device; called before a ciphertext leaves and before a
   *   message is acknowledged
   * @param {PublicKey} [options.trustRoot] whose sender certificates to believe in sealed messages
   * @param {(message: Message) => void | Promise<void>} [options.onMessage]
   * @param {(envelope: object) => void} [options.onEnvelope] sees each delivery at once, before it is decrypted
   * @param {() => void} [options.onQueueEmpty]
   * @param {(cause: Error | null) => void} [options.onInterrupted]
   * @param {(problem: Error, envelope: object | null) => void} [options.onProblem] a message that cannot be read
   */
  constructor(device, { persist = async () => {}, trustRoot, ...handlers } = {}) {
    this.device = device;
    this.#persist = persist;
    this.#trustRoot = trustRoot;
    this.#handlers = handlers;
  }

  get connected() {
    return this.#connection !== null;
  }

  /** libsignal's connection, for calls that this class does not wrap. */
  get connection() {
    if (!this.#connection) throw new NotConnected();
    return this.#connection;
  }

  /** Opens the authenticated websocket. The server starts to deliver the queue at once. */
  async connect(net, { password = this.device.password } = {}) {
    let open = true;
    let connection = null;
    this.#inbox.length = 0;
    const listener = {
      onIncomingMessage: (bytes, _timestamp, ack) => open && this.#arrived(bytes, ack),
      onQueueEmpty: () => open && this.#arrived(null, null),
      onConnectionInterrupted: (cause) => {
        open = false;
        if (this.#connection === connection) {
          this.#connection = null;
          // Whatever was not read yet was not acknowledged, and an acknowledgement has nowhere to go now: the server
          // delivers it again.
          this.#inbox.length = 0;
        }
        this.#handlers.onInterrupted?.(cause);
      },
    };
    const { aci, deviceId } = this.device;
    connection = await net.connectAuthenticatedChat(`${aci}.${deviceId}`, password, false, listener);
    if (!open) throw new NotConnected();
    this.#connection = connection;
    this.#startReading();
  }

  /** Finishes reading what has arrived, then closes. */
  async disconnect() {
    await this.#reading;
    const connection = this.#connection;
    this.#connection = null;
    await connection?.disconnect();
  }

  /** One request over the websocket: the status, and the JSON body if there is one. */
  async request(verb, path, json) {
    const response = await this.connection.fetch({
      verb,
      path,
      headers: json === undefined ? [] : [['content-type', 'application/json']],
      body: json === undefined ? undefined : new Uint8Array(Buffer.from(JSON.stringify(json))),
      timeoutMillis: 20_000,
    });
    const body = response.body?.length ? Buffer.from(response.body).toString('utf8') : null;
    return { status: response.status, headers: response.headers, json: body === null ? null : JSON.parse(body) };
  }

  // ---- prekeys

  async preKeyCounts() {
    const { status, json } = await this.request('GET', '/v2/keys?identity=aci');
    if (status !== 200) throw new Refused('counting the prekeys', status);
    return json;
  }

  /** Publishes fresh one-time prekeys in place of those the server still has. */
  async publishPreKeys(count = ONE_TIME_PREKEYS) {
    const { device } = this;
    const oneTime = await makeOneTimePreKeys(device, count);
    const [signedId] = [...device.signedPreKeys.keys()].slice(-1);
    const signedPreKey = toJson(await device.signedPreKeyStore.getSignedPreKey(signedId));
    const pqLastResortPreKey = toJson(await device.kyberPreKeyStore.getKyberPreKey(device.lastResortId));
    // The private halves must be safe before anybody can use the public ones.
    await this.#persist();
    const body = { ...oneTime, signedPreKey, pqLastResortPreKey };
    const { status } = await this.request('PUT', '/v2/keys?identity=aci', body);
    if (status !== 204 && status !== 200) throw new Refused('publishing prekeys', status);
  }

  /** Publishes prekeys when few are left. Private keys of the replaced ones stay, a message may be under way. */
  async topUpPreKeys() {
    const { count, pqCount } = await this.preKeyCounts();
    if (Math.min(count, pqCount) < LOW_WATER) await this.publishPreKeys();
  }

  /** Takes prekey bundles of an account: of one device, or of all. Each call consumes one-time keys. */
  async takeBundles(aci, device = '*') {
    const { status, json } = await this.request('GET', `/v2/keys/${aci}/${device}`);
    if (status === 404) throw new UnknownRecipient(aci);
    if (status !== 200) throw new Refused('fetching prekeys', status);
    return bundlesFromJson(json);
  }

  /** Starts a session with the device of this bundle (PQXDH). */
  async startSession(aci, bundle) {
    const { device } = this;
    const peer = ProtocolAddress.new(aci, bundle.deviceId());
    await this.#ratchet.run(() =>
      processPreKeyBundle(bundle, peer, device.address, device.sessionStore, device.identityStore),
    );
  }

  // ---- sending

  /** Encrypts and sends; returns when the server has accepted the message. */
  async send(aci, text) {
    return this.#sending.run(async () => this.deliver(await this.prepare(aci, text)));
  }

  /**
   * Encrypts for every device of the recipient. The result may be delivered more than once: the recipient's ratchet
   * drops a ciphertext that it has seen, so this is how to retry after a lost connection.
   */
  async prepare(aci, text, timestamp = Date.now()) {
    if (this.device.knownDevices(aci).length === 0) {
      for (const bundle of await this.takeBundles(aci)) await this.startSession(aci, bundle);
    }
    const outbound = { aci, text, timestamp, contents: [] };
    await this.#encrypt(outbound);
    return outbound;
  }

  /** Sends what {@link prepare} made, following the server's corrections of the device list. */
  async deliver(outbound) {
    for (let round = 1; ; round += 1) {
      try {
        await this.connection.sendMessage({
          destination: Aci.parseFromServiceIdString(outbound.aci),
          timestamp: outbound.timestamp,
          contents: outbound.contents,
          onlineOnly: false,
          urgent: true,
        });
        return;
      } catch (error) {
        if (LibSignalErrorBase.is(error, ErrorCode.ServiceIdNotFound)) throw new UnknownRecipient(outbound.aci);
        if (!LibSignalErrorBase.is(error, ErrorCode.MismatchedDevices) || round === SEND_ROUNDS) throw error;
        for (const entry of error.entries) await this.#follow(outbound.aci, entry);
        await this.#encrypt(outbound);
      }
    }
  }

  /**
   * Sends without telling the server who we are.
   * @param anonymous an unauthenticated connection
   * @param {{ accessKey: Uint8Array, certificate: object }} sealing the recipient's access key, our sender certificate
   */
  async sendSealed(anonymous, aci, text, { accessKey, certificate }) {
    const { device } = this;
    const contents = [];
    for (const deviceId of device.knownDevices(aci)) {
      const peer = ProtocolAddress.new(aci, deviceId);
      const sealed = await this.#ratchet.run(() =>
        sealedSenderEncryptMessage(pad(text), peer, certificate, device.sessionStore, device.identityStore),
      );
      contents.push({ deviceId, registrationId: this.#registrationIdOf(peer), contents: sealed });
    }
    await this.#persist();
    await anonymous.sendMessage({
      destination: Aci.parseFromServiceIdString(aci),
      timestamp: Date.now(),
      contents,
      auth: { accessKey },
      onlineOnly: false,
      urgent: true,
    });
  }

  async #encrypt(outbound) {
    const { device } = this;
    outbound.contents = [];
    for (const deviceId of device.knownDevices(outbound.aci)) {
      const peer = ProtocolAddress.new(outbound.aci, deviceId);
      const contents = await this.#ratchet.run(() =>
        signalEncrypt(pad(outbound.text), peer, device.address, device.sessionStore, device.identityStore),
      );
      outbound.contents.push({ deviceId, registrationId: this.#registrationIdOf(peer), contents });
    }
    await this.#persist();
  }

  #registrationIdOf(peer) {
    return SessionRecord.deserialize(this.device.sessions.get(peer.toString())).remoteRegistrationId();
  }

  async #follow(aci, { missingDevices, extraDevices, staleDevices }) {
    for (const deviceId of [...extraDevices, ...staleDevices]) {
      this.device.sessions.delete(ProtocolAddress.new(aci, deviceId).toString());
    }
    for (const deviceId of [...missingDevices, ...staleDevices]) {
      for (const bundle of await this.takeBundles(aci, deviceId)) await this.startSession(aci, bundle);
    }
  }

  // ---- receiving

  /** `bytes` is null for the end of the queue, which keeps its place behind the messages before it. */
  #arrived(bytes, ack) {
    let envelope = null;
    let problem = null;
    if (bytes) {
      try {
        envelope = readEnvelope(bytes);
        this.#handlers.onEnvelope?.(envelope);
      } catch (error) {
        problem = error;
      }
    }
    this.#inbox.push({ envelope, problem, ack });
    this.#startReading();
  }

  /** The first deliveries may come before `connect` is done; whoever is told of them may want to use the connection. */
  #startReading() {
    if (!this.#connection || this.#inbox.length === 0) return;
    this.#reading ??= this.#read().finally(() => {
      this.#reading = null;
      this.#startReading();
    });
  }

  /** Reads what has arrived, in batches: one write of the state and then the acknowledgements. */
  async #read() {
    while (this.#inbox.length > 0) {
      const acks = [];
      for (const arrival of this.#inbox.splice(0, BATCH)) {
        if (!arrival.ack) {
          this.#handlers.onQueueEmpty?.();
          continue;
        }
        try {
          const message = arrival.problem ? null : await this.#open(arrival.envelope);
          if (arrival.problem) throw arrival.problem;
          if (message) await this.#handlers.onMessage?.(message);
        } catch (error) {
          // Unreadable today is unreadable tomorrow: it is acknowledged, or it would come back with each connection.
          this.#handlers.onProblem?.(error, arrival.envelope);
        }
        acks.push(arrival.ack);
      }
      await this.#persist();
      for (const ack of acks) acknowledge(ack);
    }
  }

  /** Decrypts an envelope; null when it carries nothing for a person to read. */
  async #open(envelope) {
    try {
      const opened = await this.#ratchet.run(() => this.#decrypt(envelope));
      return opened && { ...opened, text: unpad(opened.padded), sentAt: envelope.timestamp };
    } catch (error) {
      // Delivery is at least once: the same ciphertext may come again when an acknowledgement got lost.
      if (LibSignalErrorBase.is(error, ErrorCode.DuplicatedMessage)) return null;
      throw error;
    }
  }

  async #decrypt({ type, content, source, sourceDevice, timestamp }) {
    const { device } = this;
    switch (type) {
      case EnvelopeType.CIPHERTEXT: {
        const peer = ProtocolAddress.new(source, sourceDevice);
        const padded = await signalDecrypt(
          SignalMessage.deserialize(content),
          peer,
          device.address,
          device.sessionStore,
          device.identityStore,
        );
        return { from: source, device: sourceDevice, padded, sealed: false };
      }
      case EnvelopeType.PREKEY: {
        const peer = ProtocolAddress.new(source, sourceDevice);
        const padded = await signalDecryptPreKey(
          PreKeySignalMessage.deserialize(content),
          peer,
          device.address,
          device.sessionStore,
          device.identityStore,
          device.preKeyStore,
          device.signedPreKeyStore,
          device.kyberPreKeyStore,
        );
        return { from: source, device: sourceDevice, padded, sealed: false };
      }
      case EnvelopeType.SEALED: {
        if (!this.#trustRoot) throw new Error('a sealed message came, and no trust root is set to check its sender');
        const result = await sealedSenderDecryptMessage(
          content,
          this.#trustRoot,
          timestamp,
          null,
          device.aci,
          device.deviceId,
          device.sessionStore,
          device.identityStore,
          device.preKeyStore,
          device.signedPreKeyStore,
          device.kyberPreKeyStore,
        );
        return { from: result.senderUuid(), device: result.deviceId(), padded: result.message(), sealed: true };
      }
      case EnvelopeType.RECEIPT:
        return null;
      default:
        throw new Error(`a message of unknown type ${type} came`);
    }
  }
}

/** Prekey bundles from the answer of `GET /v2/keys/{serviceId}/{device}`. */
export function bundlesFromJson(json) {
  const identityKey = PublicKey.deserialize(bytesFrom(json.identityKey));
  return json.devices.map(({ deviceId, registrationId, preKey, signedPreKey, pqPreKey }) =>
    PreKeyBundle.new(
      registrationId,
      deviceId,
      preKey ? preKey.keyId : null,
      preKey ? PublicKey.deserialize(bytesFrom(preKey.publicKey)) : null,
      signedPreKey.keyId,
      PublicKey.deserialize(bytesFrom(signedPreKey.publicKey)),
      bytesFrom(signedPreKey.signature),
      identityKey,
      pqPreKey.keyId,
      KEMPublicKey.deserialize(bytesFrom(pqPreKey.publicKey)),
      bytesFrom(pqPreKey.signature),
    ),
  );
}

/** Whether the connection, not the request, is what failed: a retry may help. */
export function isConnectionLoss(error) {
  return (
    error instanceof NotConnected ||
    LibSignalErrorBase.is(error, ErrorCode.ChatServiceInactive) ||
    LibSignalErrorBase.is(error, ErrorCode.IoError)
  );
}

export class NotConnected extends Error {
  constructor() {
    super('not connected to the server');
    this.name = 'NotConnected';
  }
}

export class UnknownRecipient extends Error {
  constructor(aci) {
    super(`the server has no account ${aci} with published keys`);
    this.name = 'UnknownRecipient';
    this.aci = aci;
  }
}

export class Refused extends Error {
  constructor(what, status) {
    super(`${what}: the server answered with status ${status}`);
    this.name = 'Refused';
    this.status = status;
  }
}

function acknowledge(ack) {
  try {
    ack.send(200);
  } catch {
    // The connection went away; the message comes again and is recognised.
  }
}
