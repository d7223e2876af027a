//! A server that crashes leaves no image of its memory.

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::search::files;
use crate::support::{Backend, Person, Server, on_each_backend, send};

on_each_backend! {
    t73_a_crash_leaves_no_core_file_and_what_was_accepted
}

async fn t73_a_crash_leaves_no_core_file_and_what_was_accepted(backend: Backend) {
    // Whatever the machine's habit is: as large as it allows.
    let allowed = getrlimit(Resource::Core).maximum;
    let all = Rlimit {
        current: allowed,
        maximum: allowed,
    };
    setrlimit(Resource::Core, all).unwrap();
    let mut server = Server::spawn(backend).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid().as_raw_nonzero())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let core: Vec<_> = core.split_whitespace().skip(4).collect();
    assert_eq!(
        core,
        ["1", "1", "bytes"],
        "one byte: no file, and nothing through a pipe"
    );

    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    send(&server, &alice, &bob, b"before the crash").await.expect(200);
    let before = files(server.place().path());
    server.signal(Signal::ABORT);
    assert_eq!(server.exit_code().await, None, "ended by the signal");
    let left: Vec<_> = files(server.place().path());
    let new: Vec<_> = left.iter().filter(|path| !before.contains(path)).collect();
    assert!(new.is_empty(), "{new:?}");
    let server = server.restart();
    assert_eq!(bob.connect(&server).await.drain().await, ["before the crash"]);
}
