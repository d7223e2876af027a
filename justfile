# What people do here; `just` alone lists it.

[private]
default:
    @just --list --unsorted

# Run every test, exactly as CI does. Names of steps run only those: just check fmt clippy
check *STEPS:
    tests/run {{ STEPS }}

# Start a throw-away PostgreSQL and Redis, and print the variables with which `cargo test` finds them
db-up:
    tests/run --servers

# Make the checked-in Rust code of keys-schema/proto anew, then see whether it differs from what was checked in
regenerate:
    BLESS=1 cargo test --locked --package keys-schema
    git diff --exit-code -- keys-schema/src/proto

# Measure the release build. Arguments go to the load generator: just bench --help
bench *ARGUMENTS:
    cargo build --release --locked --bin blind-relay
    cargo run --release --locked --package bench -- {{ ARGUMENTS }}

# Fuzz one target until it is interrupted or something breaks; new inputs join its corpus
fuzz TARGET *ARGUMENTS:
    cargo +nightly fuzz run --sanitizer none {{ TARGET }} fuzz/corpus/{{ TARGET }} -- {{ ARGUMENTS }}
