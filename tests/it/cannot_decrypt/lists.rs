//! What must not be there, and all that opens something or is a secret, each with its reason.

/// Parts of names of crates that hold sessions or open sealed-sender messages. `deny.toml` names those that there are;
/// these also catch forks.
pub(super) const FORBIDDEN_CRATES: &[&str] = &[
    "axolotl",
    "libomemo",
    "libsignal",
    "megolm",
    "mls-rs",
    "noise-protocol",
    "olm-rs",
    "olm-sys",
    "omemo",
    "openmls",
    "pqxdh",
    "proteus",
    "ratchet",
    "sealed-sender",
    "sealed_sender",
    "signal-crypto",
    "signal-protocol",
    "signal_protocol",
    "vodozemac",
    "x3dh",
];

/// The crates of the program that can open anything, or agree on a key, and what they are there for.
pub(super) const CAPABLE_CRATES: &[(&str, &str)] = &[
    ("aead", "the traits of chacha20poly1305 and aes-gcm"),
    ("aes", "for aes-gcm"),
    (
        "aes-gcm",
        "the cipher of HPKE, with which creation times are sealed to accounts",
    ),
    ("aws-lc-rs", "TLS"),
    ("aws-lc-sys", "TLS"),
    ("chacha20", "for chacha20poly1305, and the generator of rand"),
    ("chacha20poly1305", "sealing.rs and keys-schema's sealed_queue.rs"),
    ("cipher", "the traits of chacha20 and aes"),
    ("crypto-common", "the traits of all of these"),
    ("ctr", "for aes-gcm"),
    (
        "curve25519-dalek",
        "keys-schema: checks of keys, signatures, proofs of user names",
    ),
    ("curve25519-dalek-derive", "for curve25519-dalek"),
    ("ed25519", "for ed25519-dalek"),
    ("ed25519-dalek", "signs the reports of audits"),
    ("ghash", "for aes-gcm"),
    (
        "hpke",
        "seals creation times to accounts; seals queues to devices, and opens them with a device's own key",
    ),
    (
        "openssl-probe",
        "finds the certificates of the system, for object_store; no OpenSSL",
    ),
    ("poly1305", "for chacha20poly1305"),
    ("polyval", "for aes-gcm"),
    ("rand_chacha", "a generator, for the retries of object_store"),
    ("x25519-dalek", "for hpke"),
];

/// Of which names a crate counts as capable: whole names, then parts of names.
pub(super) const CAPABLE_NAMES: &[&str] = &["age", "ctr", "ring", "rsa", "snow", "orion", "sequoia-openpgp"];
pub(super) const CAPABLE_PARTS: &[&str] = &[
    "25519", "aead", "aes", "aws-lc", "box_", "chacha", "cipher", "crypto", "dalek", "decrypt", "ecies", "ghash",
    "hpke", "-kem", "kem-", "kyber", "nacl", "noise", "openssl", "pgp", "poly1305", "polyval", "salsa", "sodium",
];

/// Words that are names of types and functions with which sessions and sealed-sender messages are opened, in small letters
/// and without underscores.
pub(super) const FORBIDDEN_WORDS: &[&str] = &[
    "decryptenvelope",
    "decryptmessage",
    "decryptprekeymessage",
    "decryptsealedsender",
    "groupcipher",
    "groupdecrypt",
    "messagedecrypt",
    "messagedecryptprekey",
    "messagedecryptsignal",
    "messagekeys",
    "olmaccount",
    "olmdecrypt",
    "olmsession",
    "protocolstore",
    "ratchetkeypair",
    "sealedsession",
    "sessionstore",
    "unsealenvelope",
    "unsealmessage",
    "usmc",
];

/// Parts of such words.
pub(super) const FORBIDDEN_PARTS: &[&str] = &[
    "doubleratchet",
    "identitykeystore",
    "libsignal",
    "megolm",
    "prekeystore",
    "sealedsenderdecrypt",
    "sealedsenderopen",
    "senderkeyrecord",
    "senderkeystore",
    "sessioncipher",
    "sessionrecord",
    "signalprotocol",
    "unidentifiedsendermessage",
    "vodozemac",
    "x3dh",
];

/// What a symbol of Rust code is called that opens something.
pub(super) const OPENING: &[&str] = &[
    "decaps",
    "decrypt",
    "open_in_place",
    "setup_receiver",
    "shot_open",
    "unseal_",
];

/// The crates whose symbols may be called so.
pub(super) const OPENING_CRATES: &[(&str, &str)] = &[
    ("aead", "the traits of chacha20poly1305 and aes-gcm"),
    ("aes", "for aes-gcm"),
    ("aes_gcm", "the cipher of HPKE"),
    ("aws_lc_rs", "TLS"),
    ("chacha20poly1305", "sealing.rs and keys-schema's sealed_queue.rs"),
    ("cipher", "the traits of chacha20 and aes"),
    ("hpke", "queues, with a device's own key"),
    ("inout", "buffers of the traits"),
    ("rustls", "TLS"),
    ("x25519_dalek", "for hpke"),
];

/// The sources of ours that call what opens, and what they open.
pub(super) const OPENING_SOURCES: &[(&str, &str)] = &[
    (
        "src/sealing.rs",
        "opens what the server itself sealed, under keys from the pepper, from a device's password, or from an id or token \
         that its owner shows: numbers, access keys, hints and what crosses between nodes",
    ),
    (
        "keys-schema/src/sealed_queue.rs",
        "opens rows of a queue with the queue key of its device; what comes out is the envelope as it came in, whose content \
         is still the sender's ciphertext",
    ),
];

/// The words in sources that mean: here something is opened, or a secret is agreed on.
pub(super) const OPENING_WORDS: &[&str] = &[
    "OpModeR",
    "decapsulate",
    "decrypt",
    "decrypt_in_place",
    "decrypt_inout",
    "decrypt_inout_detached",
    "diffie_hellman",
    "open_in_place",
    "setup_receiver",
    "single_shot_open",
    "x25519_dalek",
];

/// The sources that open something with [`OPENING_SOURCES`], and what.
pub(super) const OPENERS: &[(&str, &str)] = &[
    ("keys-schema/src/sealed_queue.rs", "is where rows are opened"),
    (
        "src/auth/credential.rs",
        "an account's number, with a device's password while it is shown",
    ),
    (
        "src/auth/secrets.rs",
        "access keys, with the pepper; numbers of sessions and link offers, with the id or token that is shown",
    ),
    (
        "src/auth/tokens/carried.rs",
        "the keys that a device's password would open, which its access token carries, while the token is shown",
    ),
    ("src/auth/tokens/keys.rs", "the keys that sign tokens, with the pepper"),
    ("src/auth/tokens/mod.rs", "both of those, for whoever shows a token"),
    (
        "src/auth/tokens/refresh.rs",
        "what a refresh token says: whose it is, and the same keys, while it is shown",
    ),
    (
        "src/directory/memo.rs",
        "bundles of public keys that were answered a moment ago, with the idempotency key of the client that asks again",
    ),
    (
        "src/relay/drain.rs",
        "the queue of a device, with its queue key, while the device reads; and once the queue of one from before there were \
         queue keys, with an interim key that is sealed under the pepper until the device comes",
    ),
    ("src/sealing.rs", "is where values are opened"),
    ("src/sealing/queue.rs", "such interim keys"),
    (
        "src/wakeup/redis.rs",
        "what another node sent: hints, and online-only envelopes, whose content is the sender's ciphertext",
    ),
];

/// Types of ours whose names speak of secrets, sessions or opening, and what they are.
pub(super) const TYPES: &[(&str, &str)] = &[
    ("ConfigSecret", "a row of the manifest"),
    (
        "DeviceSecret",
        "what a device's password derives: opens the number, and the device's queue",
    ),
    ("Epoch", "the keys to seal rows with for an hour"),
    ("EpochKey", "a key to seal rows with for an hour"),
    (
        "NewTokenSession",
        "a session with tokens that a device is about to open",
    ),
    ("OpenedSession", "a session with tokens that was opened"),
    ("Opener", "opens the rows of one device, with the device's queue key"),
    (
        "PrivateKey",
        "signs sender certificates; as an alias, the private half of a device's queue key",
    ),
    ("QueueOpener", "as Opener, for all that a connection does at a time"),
    ("QueueKey", "the private half of a device's queue key"),
    ("SealedSender", "the settings of sender certificates"),
    ("SealingKey", "seals and opens values of the server's own"),
    ("SecretFileError", "why a file of a secret was refused"),
    ("SecretVerifier", "the salted hash of a password"),
    ("Secret", "a setting that is not shown"),
    ("ServerSecrets", "keys derived from the pepper"),
    ("Session", "what a connection has been given and has not acknowledged"),
    ("SessionId", "of a verification of a number"),
    ("SessionIn", "a request for a verification of a number"),
    ("SessionKey", "the hash of the id of such a verification"),
    ("SessionLimits", "how much a connection is given at once"),
    ("SessionOut", "the state of such a verification"),
    ("SessionUpdateIn", "a request about such a verification"),
    ("TokenSecrets", "keys derived from the pepper, for tokens"),
    ("TokenSession", "a session with tokens: its device, and two days"),
    ("TokenSessionId", "of such a session"),
    ("TokenSessionOut", "such a session, as its owner sees it"),
    ("TokenSessions", "which of them stand"),
    ("TokenSessionsOut", "several of them, as their owner sees them"),
    ("Unsealable", "why an envelope was not sealed"),
    (
        "UnsealedRow",
        "an envelope from before there were queue keys, on its way to be sealed",
    ),
    ("VerificationSession", "such a verification as it is stored"),
];

/// Parts of such names.
pub(super) const TYPE_PARTS: &[&str] = &[
    "Cipher",
    "Decrypt",
    "Epoch",
    "KeyPair",
    "Opener",
    "Plaintext",
    "Private",
    "QueueKey",
    "Ratchet",
    "SealedSender",
    "SealingKey",
    "Secret",
    "Session",
    "Unseal",
];
