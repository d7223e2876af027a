//! What this machine is: figures without it say little.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// What is known about it.
pub(crate) struct Facts {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) server: String,
}

impl Facts {
    /// Looks around.
    pub(crate) fn of(server: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let memory = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        let cpuinfo = read("/proc/cpuinfo");
        let version = Command::new(server).arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Self {
            processor: after(&cpuinfo, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: memory / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            server: version.unwrap_or_default(),
        }
    }

    /// In words.
    pub(crate) fn described(&self) -> String {
        format!(
            "{}, {} cores, {} MiB, Linux {}; {}",
            self.processor, self.cores, self.memory_mib, self.kernel, self.server
        )
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "processor": self.processor,
            "cores": self.cores,
            "memory_mib": self.memory_mib,
            "kernel": self.kernel,
            "server": self.server,
        })
    }
}
